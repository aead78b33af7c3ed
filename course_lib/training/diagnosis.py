"""What ails a GAN, told from what a monitor writes down while it trains."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.errors import InputError
from course_lib.evaluation.scores import player_scores
from course_lib.losses.adversarial import NON_SATURATING, Game
from course_lib.models.ensemble import Ensemble
from course_lib.training.steps import Players

# The fakes' mean D is at most 1/2 if the discriminator is the best one: the mean of
# p_data / (p_data + p_g) under p_g is largest where the densities are equal. So 0.6
# says that it does not follow. Healthy toy runs (seeds 500 to 523) had at most 0.49.
FOOLED = 0.6
# Against a generator that makes k of m modes the best discriminator has the score
# m / (m + k): above 0.75 for less than a third of them, 0.89 for one of eight. Above
# 0.95 (one of twenty) scores cannot tell a collapse from fakes where no data are.
AHEAD, CERTAIN = 0.75, 0.95
# As a share of the data's spread. Of a ring of 8 modes (radius 2, std 0.1) one has
# 0.07, two neighbours have 0.39, three 0.60, four 0.76.
ONE_SPOT, NARROW = 0.15, 0.75
# As a share of the data's spread, between reports that are 25 updates apart. Healthy
# toy runs (seeds 500 to 523) moved by at most 0.11, those that go round (400 to 423)
# by at least 1.1.
RESTLESS = 0.3
# Fewer reports show no trend.
FEWEST_REPORTS = 4

Name = Literal[
    "not a number",
    "generator too strong",
    "discriminator too strong",
    "generator collapsed",
    "oscillation",
    "all well",
]
REMEDIES: dict[Name, str] = {
    "not a number": "lower both learning rates, or clip gradients",
    "generator too strong": "more discriminator updates, or a higher rate for it",
    "discriminator too strong": "the non-saturating loss, fewer discriminator "
    "updates, flipped labels or instance noise",
    "generator collapsed": "Adam for the generator, a lower rate, or R1",
    "oscillation": "a lower rate for the generator, less momentum, or R1",
    "all well": "nothing; but count the modes, which no score does",
}


class Report(NamedTuple):
    """What a monitor writes down at one moment of one training.

    Args:
        generator_score: mean D(G(z)) over the fixed latents, from 0 to 1.
        discriminator_score: half of mean D(x) + 1 - mean D(G(z)), from 0 to 1.
        generator_gradient: norm of the generator's gradient at its last update.
        discriminator_gradient: the same of the discriminator.
        samples: what the generator makes of the fixed latents.
        data_spread: root mean square distance of the real data from their mean.
    """

    generator_score: float
    discriminator_score: float
    generator_gradient: float
    discriminator_gradient: float
    samples: Float[Tensor, "latents *shape"]
    data_spread: float


class Signs(NamedTuple):
    """What the newer half of a history shows.

    Args:
        generator_score: the median of the reports'.
        discriminator_score: their mean.
        spread: of the samples, as a share of the data's; nine of ten reports have no
            more.
        moved: by what share of the data's spread samples of the same latents move
            from one report to the next; the median.
    """

    generator_score: float
    discriminator_score: float
    spread: float
    moved: float


class Diagnosis(NamedTuple):
    """What ails a training, what was seen, and what to try."""

    name: Name
    seen: str
    remedy: str


def look(
    players: Players,
    real: Float[Tensor, "real *shape"],
    latent: Float[Tensor, "latents latent_dim"],
    *,
    game: Game = NON_SATURATING,
) -> list[Report]:
    """Write down how a training stands, right after an update of both players.

    Args:
        real: a batch that is held back, the same at every look. Scores are taken
            on it as it is: before labels are flipped, without noise.
        latent: fixed latents, the same at every look.

    Returns one report for each run: of an `Ensemble` as many as it has members,
    else one. The networks are used in the mode that they are in.

    Raises:
        InputError: the game's numbers are no probabilities, so there are no scores;
            or a network has no gradient yet.
    """
    if not game.probabilities:
        raise InputError(
            "found a game whose outputs are no probabilities: least squares, hinge, "
            "Wasserstein and relativistic games have no scores to diagnose by"
        )
    networks = players.generator, players.discriminator
    runs = len(networks[0]) if isinstance(networks[0], Ensemble) else 1
    by_run = [gradient_norms(network).tolist() for network in networks]
    with torch.no_grad():
        fake = players.generator(torch.cat([latent] * runs))
        scores = player_scores(
            players.discriminator(torch.cat([real] * runs)).unflatten(0, (runs, -1)),
            players.discriminator(fake).unflatten(0, (runs, -1)),
        )
    by_run = [score.tolist() for score in scores] + by_run
    spread = spread_of(real)
    return [
        Report(*numbers, samples=samples, data_spread=spread)
        for *numbers, samples in zip(*by_run, fake.chunk(runs), strict=True)
    ]


def gradient_norms(network: nn.Module) -> Float[Tensor, " runs"]:
    """Return the norm of the gradient that the last update left, for each run.

    Raises:
        InputError: there is none.
    """
    gradients = [weight.grad for weight in network.parameters()]
    if any(gradient is None for gradient in gradients):
        raise InputError("found weights without a gradient: look after an update")
    if not isinstance(network, Ensemble):
        gradients = [gradient[None] for gradient in gradients]
    squares = [gradient.flatten(1).square().sum(dim=1) for gradient in gradients]
    return torch.stack(squares).sum(dim=0).sqrt()


def spread_of(samples: Float[Tensor, "n *shape"]) -> float:
    """Return the root mean square distance of samples from their mean."""
    return _length(samples - samples.mean(dim=0))


def diagnose(
    history: Sequence[Report],
    *,
    flip_probability: float = 0.0,
) -> Diagnosis:
    """Name what ails a training, from the newer half of its reports.

    It is "not a number" where some number or sample of any report is not finite, or
    else what `name_of` says.

    Args:
        history: reports of one run at equal intervals, `FEWEST_REPORTS` or more.
        flip_probability: with which labels of real data are flipped (or 1 minus
            the target of one-sided smoothing). The best discriminator is then
            (1 - p) p_data / (p_data + p_g); scores are set right for it.

    Raises:
        InputError: the history is too short, or the probability is not in [0, 1).
    """
    if len(history) < FEWEST_REPORTS:
        raise InputError(f"found {len(history)} reports: needed {FEWEST_REPORTS}")
    if not 0 <= flip_probability < 1:
        raise InputError(f"flip_probability={flip_probability}: use 0 to below 1")
    for place, report in enumerate(history):
        if not _is_finite(report):
            name, seen = "not a number", f"report {place + 1} is not finite"
            return Diagnosis(name, seen, REMEDIES[name])
    signs = signs_of(history[len(history) // 2 :], flip_probability)
    name = name_of(signs)
    seen = (
        f"scores {signs.generator_score:.2f} and {signs.discriminator_score:.2f}, "
        f"spread {signs.spread:.2f}, moved by {signs.moved:.2f}"
    )
    return Diagnosis(name, seen, REMEDIES[name])


def name_of(signs: Signs) -> Name:
    """Name the first fault that fits.

    "All well" means that none does: a run that has learnt nothing yet may get it,
    too, and more than half of the modes may be missing without a sign. A collapse
    onto modes that lie far apart is as wide as the data and is called a strong
    discriminator. Neither gradient is looked at.
    """
    ahead = signs.discriminator_score > AHEAD
    if signs.generator_score > FOOLED:
        return "generator too strong"
    if signs.discriminator_score > CERTAIN:
        return "discriminator too strong"
    if signs.spread < ONE_SPOT or (ahead and signs.spread < NARROW):
        return "generator collapsed"
    if ahead:
        return "discriminator too strong"
    if signs.moved > RESTLESS:
        return "oscillation"
    return "all well"


def signs_of(reports: Sequence[Report], flip_probability: float) -> Signs:
    """Sum up reports of one run, all finite, at least two of them."""
    scores = [unflipped_scores(report, flip_probability) for report in reports]
    scale = reports[0].data_spread
    spreads = sorted(spread_of(report.samples) for report in reports)
    moves = [_length(new.samples - old.samples) for old, new in pairwise(reports)]
    return Signs(
        generator_score=median(generator for generator, _ in scores),
        discriminator_score=fmean(discriminator for _, discriminator in scores),
        spread=spreads[math.ceil(0.9 * len(spreads)) - 1] / scale,
        moved=median(moves) / scale,
    )


def unflipped_scores(report: Report, flip_probability: float) -> tuple[float, float]:
    """Return the scores of generator and discriminator that the best discriminator
    would give, had no label been flipped: its D divided by 1 - flip_probability.
    """
    fake = report.generator_score
    real = 2 * report.discriminator_score - 1 + fake
    fake, real = fake / (1 - flip_probability), real / (1 - flip_probability)
    return fake, (real + 1 - fake) / 2


def _length(differences: Float[Tensor, "n *shape"]) -> float:
    """Return the root mean square length of the rows."""
    return differences.flatten(1).square().sum(dim=1).mean().sqrt().item()


def _is_finite(report: Report) -> bool:
    numbers = report._replace(samples=0.0)
    return all(map(math.isfinite, numbers)) and bool(report.samples.isfinite().all())
