"""Names of faults, on histories written by hand and on sixty toy trainings that are broken on purpose."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from course_lib.data.toy import GaussianMixture, ring
from course_lib.errors import InputError
from course_lib.evaluation.detective import fresh_detective_accuracy
from course_lib.losses.adversarial import GAMES
from course_lib.models.ensemble import Ensemble
from course_lib.models.mlp_gan import Discriminator, Generator
from course_lib.training.diagnosis import (
    FEWEST_REPORTS,
    Diagnosis,
    Name,
    Report,
    diagnose,
    look,
    spread_of,
    unflipped_scores,
)
from course_lib.training.steps import Players, adversarial_step, discriminator_step

DATA = ring(std=0.1)
NAMES: tuple[Name, ...] = get_args(Name)

# ── Histories written by hand ─────────────────────────────────────────────────────────────────────────────────────

SPREAD_OUT = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])  # as the data: its spread is 2
WELL = Report(0.47, 0.53, 0.8, 0.9, SPREAD_OUT, data_spread=2.0)


def names(*reports: Report) -> Name:
    return diagnose(reports).name


def test_a_game_near_balance_whose_samples_hardly_move_is_well():
    diagnosis = diagnose([WELL] * 6)
    assert diagnosis.name == "all well"
    assert "0.47 and 0.53" in diagnosis.seen


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"generator_score": 0.9, "discriminator_score": 0.5}, "generator too strong"),
        ({"generator_score": 0.02, "discriminator_score": 0.98}, "discriminator too strong"),
        ({"samples": 0.1 * SPREAD_OUT}, "generator collapsed"),
        ({"generator_score": 0.1, "discriminator_score": 0.9, "samples": 0.5 * SPREAD_OUT}, "generator collapsed"),
        ({"generator_score": 0.1, "discriminator_score": 0.9}, "discriminator too strong"),
    ],
)
def test_a_constant_fault_is_named_with_what_was_seen_and_what_to_try(change, name):
    diagnosis = diagnose([WELL._replace(**change)] * 6)
    assert diagnosis.name == name
    assert any(digit in diagnosis.seen for digit in ("0.90", "0.98", "spread 0.10"))
    assert diagnosis.remedy


def test_samples_that_change_places_are_an_oscillation():
    turned = WELL._replace(samples=SPREAD_OUT.roll(1, dims=0))
    assert names(WELL, turned, WELL, turned, WELL, turned) == "oscillation"


@pytest.mark.parametrize("field", Report._fields[:4])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_in_any_report_is_not_a_number(field, value):
    assert names(WELL._replace(**{field: value}), *[WELL] * 6) == "not a number"


def test_a_sample_that_is_not_finite_is_not_a_number():
    broken = SPREAD_OUT.clone()
    broken[1, 1] = torch.nan
    diagnosis = diagnose([*[WELL] * 6, WELL._replace(samples=broken)])
    assert (diagnosis.name, diagnosis.seen) == ("not a number", "report 7 is not finite")


def test_only_the_newer_half_counts():
    strong = WELL._replace(generator_score=0.02, discriminator_score=0.98)
    assert names(*[strong] * 5, *[WELL] * 5) == "all well"
    assert names(*[WELL] * 5, *[strong] * 5) == "discriminator too strong"


def test_one_wide_report_in_ten_does_not_hide_a_collapse():
    spot = WELL._replace(samples=0.05 * SPREAD_OUT)
    assert names(*[spot] * 19, WELL) == "generator collapsed"
    assert names(*[spot] * 18, WELL, WELL) == "all well"


def test_flipped_labels_change_what_is_healthy():
    # The best discriminator between equal densities is 0.65 / 2 everywhere; between strangers 0.65 and 0.
    healthy = WELL._replace(generator_score=0.325, discriminator_score=0.5)
    assert unflipped_scores(healthy, 0.35) == pytest.approx((0.5, 0.5))
    ahead = WELL._replace(generator_score=0.13, discriminator_score=0.695)
    assert unflipped_scores(ahead, 0.35) == pytest.approx((0.2, 0.8))
    assert names(*[ahead] * 6) == "all well"
    assert diagnose([ahead] * 6, flip_probability=0.35).name == "discriminator too strong"
    fooled = WELL._replace(generator_score=0.5, discriminator_score=0.5)
    assert diagnose([fooled] * 6).name == "all well"
    assert diagnose([fooled] * 6, flip_probability=0.35).name == "generator too strong"


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_what_is_no_probability_of_a_flip_is_refused(probability):
    with pytest.raises(InputError, match=f"flip_probability={probability}: use 0 to below 1"):
        diagnose([WELL] * 6, flip_probability=probability)


def test_a_short_history_is_refused():
    with pytest.raises(InputError, match=f"found 3 reports: needed {FEWEST_REPORTS}"):
        diagnose([WELL] * 3)


# ── What a report holds ───────────────────────────────────────────────────────────────────────────────────────────


def sgd(network: torch.nn.Module) -> Optimizer:
    return SGD(network.parameters(), 0.1)


def small_players(*seeds: int) -> list[Players]:
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        pair = Generator(latent_dim=2, width=4), Discriminator(width=4)
        found.append(Players(*pair, *map(sgd, pair)))
    return found


def test_a_report_holds_scores_gradients_and_samples_of_fixed_latents():
    (players,) = small_players(0)
    real, latent = DATA.sample(16), torch.randn(8, 2)
    adversarial_step(players, real, torch.randn(16, 2))
    (report,) = look(players, real, latent)
    with torch.no_grad():
        fake = players.generator(latent)
        of_fake = players.discriminator(fake).sigmoid().mean()
        of_real = players.discriminator(real).sigmoid().mean()
    assert torch.equal(report.samples, fake)
    assert report.generator_score == pytest.approx(of_fake.item())
    assert report.discriminator_score == pytest.approx((of_real + 1 - of_fake).item() / 2)
    squares = [weight.grad.square().sum() for weight in players.generator.parameters()]
    assert report.generator_gradient == pytest.approx(torch.stack(squares).sum().sqrt().item())
    assert report.data_spread == pytest.approx(real.var(dim=0, correction=0).sum().sqrt().item())


def test_each_run_of_an_ensemble_has_the_report_that_it_would_have_alone():
    alone = small_players(0, 1, 2)
    pair = Ensemble([one.generator for one in alone]), Ensemble([one.discriminator for one in alone])
    together = Players(*pair, *map(sgd, pair))
    real, latent = DATA.sample(3 * 16), torch.randn(3 * 16, 2)
    held, fixed = DATA.sample(10), torch.randn(5, 2)
    adversarial_step(together, real, latent, backward=lambda loss: (3 * loss).backward())
    for one, own_real, own_latent in zip(alone, real.chunk(3), latent.chunk(3), strict=True):
        adversarial_step(one, own_real, own_latent)
    for one, report in zip(alone, look(together, held, fixed), strict=True):
        (expected,) = look(one, held, fixed)
        assert torch.allclose(report.samples, expected.samples, atol=1e-6)
        assert report[:4] == pytest.approx(expected[:4], rel=1e-4)


def test_spread_is_the_root_mean_square_distance_from_the_mean():
    assert spread_of(SPREAD_OUT + 5) == pytest.approx(2.0)


@pytest.mark.parametrize("game", [name for name, game in GAMES.items() if not game.probabilities])
def test_a_game_without_probabilities_is_refused(game):
    (players,) = small_players(0)
    with pytest.raises(InputError, match="outputs are no probabilities"):
        look(players, DATA.sample(4), torch.randn(4, 2), game=GAMES[game])


def test_a_look_before_the_first_update_is_refused():
    (players,) = small_players(0)
    with pytest.raises(InputError, match="look after an update"):
        look(players, DATA.sample(4), torch.randn(4, 2))


# ── Sixty trainings ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Setting:
    """How a toy GAN is trained; as it stands, well.

    `first_steps` updates of the discriminator alone come first, at `first_rate`; then `steps` updates of both, in
    each of which the discriminator is updated `discriminator_steps` times.
    """

    game: str = "non_saturating"
    steps: int = 1200
    generator_rate: float = 1e-3
    discriminator_rate: float = 2e-3
    generator_optimizer: str = "adam"
    discriminator_optimizer: str = "adam"
    discriminator_width: int = 64
    discriminator_steps: int = 1
    first_steps: int = 0
    first_rate: float = 1e-3


# Two ways to cause each kind. That they do is not taken for granted: `truth` decides what a run is.
CAUSES: dict[Name, tuple[Setting, Setting]] = {
    "all well": (Setting(), Setting(generator_rate=2e-3)),
    "discriminator too strong": (
        Setting(game="minimax", first_steps=200, steps=300, generator_optimizer="sgd", generator_rate=1e-2),
        Setting(
            game="minimax",
            discriminator_steps=5,
            steps=200,
            generator_optimizer="sgd",
            generator_rate=0.1,
            discriminator_rate=5e-3,
        ),
    ),
    "generator too strong": (
        Setting(first_steps=100, steps=400, discriminator_rate=1e-6),
        Setting(first_steps=30, steps=400, discriminator_rate=1e-5, generator_rate=2e-3),
    ),
    "generator collapsed": (
        Setting(
            discriminator_steps=2,
            steps=600,
            generator_optimizer="sgd",
            generator_rate=1e-3,
            discriminator_rate=3e-3,
        ),
        Setting(steps=400, generator_rate=0.3, discriminator_rate=1e-3),
    ),
    "oscillation": (
        Setting(steps=600, generator_rate=3e-3, discriminator_rate=3e-4),
        Setting(steps=600, generator_rate=5e-3, discriminator_rate=1e-3, discriminator_width=16),
    ),
    "not a number": (
        Setting(
            steps=100,
            generator_optimizer="sgd",
            discriminator_optimizer="sgd",
            generator_rate=10.0,
            discriminator_rate=10.0,
        ),
        Setting(
            steps=400,
            generator_optimizer="sgd",
            discriminator_optimizer="sgd",
            generator_rate=2.0,
            discriminator_rate=0.5,
        ),
    ),
}
LATENT_DIM, BATCH, LOOK_STEPS, LOOKED_AT, JUDGED = 2, 128, 25, 256, 500


def optimizer(kind: str, network: Ensemble, rate: float) -> Optimizer:
    return SGD(network.parameters(), rate) if kind == "sgd" else Adam(network.parameters(), rate, betas=(0.5, 0.99))


def train(setting: Setting, seeds: Sequence[int]) -> tuple[list[tuple[Report, ...]], list[Tensor]]:
    """Train one GAN a seed, all at once.

    Returns the history of each run, and newly drawn samples of each run at the same moments, (looks, JUDGED, 2).
    """
    members = []
    for seed in seeds:
        torch.manual_seed(seed)
        members.append((Generator(latent_dim=LATENT_DIM, width=64), Discriminator(width=setting.discriminator_width)))
    runs = len(seeds)
    generators, discriminators = (Ensemble(networks) for networks in zip(*members, strict=True))
    players = Players(
        generators,
        discriminators,
        optimizer(setting.generator_optimizer, generators, setting.generator_rate),
        optimizer(setting.discriminator_optimizer, discriminators, setting.discriminator_rate),
    )
    rules = {"game": GAMES[setting.game], "backward": lambda loss: (runs * loss).backward()}
    real, latent = DATA.sample(LOOKED_AT), torch.randn(LOOKED_AT, LATENT_DIM)

    def draw(count: int) -> Tensor:
        return players.generator(torch.randn(runs * count, LATENT_DIM))

    first = replace(players, discriminator_optimizer=optimizer("adam", discriminators, setting.first_rate))
    for _ in range(setting.first_steps):
        discriminator_step(first, DATA.sample(runs * BATCH), draw(BATCH).detach(), **rules)
    reports, samples = [], []
    for step in range(1, setting.steps + 1):
        for _ in range(setting.discriminator_steps - 1):
            discriminator_step(players, DATA.sample(runs * BATCH), draw(BATCH).detach(), **rules)
        adversarial_step(players, DATA.sample(runs * BATCH), torch.randn(runs * BATCH, LATENT_DIM), **rules)
        if step % LOOK_STEPS == 0:
            reports.append(look(players, real, latent))
            with torch.no_grad():
                samples.append(draw(JUDGED).unflatten(0, (runs, -1)))
    return list(zip(*reports, strict=True)), list(torch.stack(samples, dim=1))


def total_variation(shares: Tensor) -> Tensor:
    """Return by how much each histogram differs from the one before, from 0 to 1."""
    return (shares[1:] - shares[:-1]).abs().sum(dim=1) / 2


def truth(samples: Tensor, data: GaussianMixture, real: Tensor) -> Name | None:
    """Say what ails a run by samples that were newly drawn while it trained, (looks, n, 2), or None if it is unclear.

    Nothing else is looked at. Of the newer half of the looks, in standard deviations of a mode:

    - not a number: a sample of the last look is not finite.
    - generator collapsed: at nine of ten looks nine of ten samples lie within 5 of their median, and this spot is on
      the data at least once or moves by more than 1. (It may wander: there is but one at a time.) Or nine of ten
      samples are nearest to the same one or two modes, half of all samples lie on them (within 3), and from look to
      look at most 10 % change modes.
    - discriminator too strong: at every look half of the samples are more than 5 away from the nearest mode; from the
      first to the last their mean moves by less than 1, so the generator learns no more; a fresh detective tells at
      least 95 % of real and drawn apart.
    - generator too strong: half of the samples are more than 5 away from the nearest mode and outside the ring; they go
      on leaving, by more than 1; a fresh detective tells at least 95 % apart. So they please none but their opponent.
    - oscillation: within twice the radius of the data, and not in one spot at half of the looks or more, the samples
      change modes: from look to look at least 40 % of them, by histograms of the nearest mode.
    - all well: at the last look seven of eight modes have 2 % of the samples, half of the samples lie on modes (within
      3), at most 10 % have changed modes between looks, and a fresh detective is right at most 80 % of the time.
    """
    if not samples[-1].isfinite().all():
        return "not a number"
    late = samples[len(samples) // 2 :]
    if not late.isfinite().all():
        return None
    std, radius = data.std, data.centres.norm(dim=1).max()
    distances, nearest = torch.cdist(late, data.centres.expand(len(late), -1, -1)).min(dim=2)  # (looks, n)
    distances = distances / std
    away = distances.median(dim=1).values
    middles = late.median(dim=1, keepdim=True).values
    one_spot = (((late - middles).norm(dim=2) < 5 * std).float().mean(dim=1) >= 0.9).float().mean()
    means = late.mean(dim=1)
    moved = (means[-1] - means[0]).norm() / std
    shares = torch.nn.functional.one_hot(nearest, data.modes).float().mean(dim=1)  # (looks, modes)
    changed = total_variation(shares).mean()
    out = late.norm(dim=2).median(dim=1).values  # (looks,)
    told = fresh_detective_accuracy(real, late[-1])

    most = shares.topk(2, dim=1).values.sum(dim=1)
    if one_spot >= 0.9 and ((away < 3).any() or moved > 1):
        return "generator collapsed"
    if ((most >= 0.9) & (away < 3)).float().mean() >= 0.9 and changed <= 0.1:
        return "generator collapsed"
    if (away > 5).all() and told >= 0.95:
        if moved < 1:
            return "discriminator too strong"
        if (out > radius).all() and away[-1] > away[0] + 1:
            return "generator too strong"
    if changed >= 0.4 and one_spot < 0.5 and out.median() < 2 * radius:
        return "oscillation"
    covered = data.modes_covered(late[-1], at_least=len(late[-1]) // 50)
    on_modes = (distances[-1] < 3).float().mean()
    if covered >= data.modes - 1 and on_modes >= 0.5 and changed <= 0.1 and told <= 0.8:
        return "all well"
    return None


RUNS_OF_A_KIND, AT_ONCE, MOST_STARTED = 10, 6, 36


def runs_of(kind: Name, first_seed: int) -> tuple[list[Diagnosis], int]:
    """Start trainings until ten are of this kind by `truth`, which knows the samples alone.

    The two causes take turns. A run of another kind, or of none that is clear, does not count, whatever the diagnosis
    says of it. Returns the diagnoses of the ten, and how many were started.
    """
    found: list[Diagnosis] = []
    for started in range(0, MOST_STARTED, AT_ONCE):
        seeds = range(first_seed + started, first_seed + started + AT_ONCE)
        histories, samples = train(CAUSES[kind][started // AT_ONCE % 2], seeds)
        real = DATA.sample(JUDGED)
        for history, own in zip(histories, samples, strict=True):
            if truth(own, DATA, real) == kind:
                found.append(diagnose(history))
        if len(found) >= RUNS_OF_A_KIND:
            return found[:RUNS_OF_A_KIND], started + AT_ONCE
    raise AssertionError(f"only {len(found)} of {MOST_STARTED} trainings are {kind!r} by their samples")


def table(found: dict[Name, Counter[Name]], started: dict[Name, int]) -> str:
    """Write the confusion matrix: a row for what runs are, a column for what the diagnosis says of them."""
    short = [name.replace("discriminator", "d.").replace("generator", "g.") for name in NAMES]
    lines = [f"{'':24}" + "".join(f"{name:>15}" for name in short) + f"{'started':>10}"]
    for kind, counts in found.items():
        lines.append(f"{kind:24}" + "".join(f"{counts[name]:>15}" for name in NAMES) + f"{started[kind]:>10}")
    return "\n".join(lines)


def test_the_diagnosis_names_what_ails_sixty_trainings():
    # Seeds below 1000 served to choose settings, bounds of `truth` and thresholds; COURSE_DIAGNOSIS_SEED gives others.
    first_seed = int(os.environ.get("COURSE_DIAGNOSIS_SEED", "1000"))
    found, started = {}, {}
    for place, kind in enumerate(NAMES):
        diagnoses, started[kind] = runs_of(kind, first_seed + 100 * place)
        found[kind] = Counter(diagnosis.name for diagnosis in diagnoses)
    matrix = table(found, started)
    print(f"\n{matrix}")
    assert min(counts[kind] for kind, counts in found.items()) >= 8, f"a kind is not told:\n{matrix}"
    assert found["all well"]["all well"] >= RUNS_OF_A_KIND - 1, f"healthy runs are called sick:\n{matrix}"
