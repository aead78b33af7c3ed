"""A GAN on points in the plane: every loss, penalty and remedy of chapter 3 is a setting.

A point is a picture of one pixel with two channels in the records' eyes: that is its `form`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam

from course_lib import plotting, runtime
from course_lib.data import toy
from course_lib.data.images import ImageForm
from course_lib.errors import InputError
from course_lib.evaluation.detective import fresh_detective_accuracy
from course_lib.losses.adversarial import GAMES
from course_lib.models.mlp_gan import Discriminator, Generator
from course_lib.recipes import shared
from course_lib.recipes.game import PENALTIES, contradictions, game_of, penalty_of, refuse
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.fit import Training
from course_lib.training.samples import drawing, fixed_latents
from course_lib.training.steps import (
    Players,
    discriminator_step,
    generator_step,
    unrolled_generator_step,
)

SOURCES = {"ring": toy.ring, "grid": toy.grid}
POINTS = 4096  # that a generator is judged by
FAIR_SHARE = 0.1  # of the points that a mode should get: with fewer it does not count as covered
REPORTS = 10
PICTURE_PX = 64


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class ToyGAN:
    """The settings of a GAN for points in the plane. Each remedy is off where its setting is 0, 1 (`real_target`),
    false or not given.
    """

    data: Annotated[Literal[*SOURCES], Field(description="name of the data set")]
    data_std: Annotated[float, Field(gt=0, le=10, description="standard deviation of each mode")]
    steps: Annotated[int, Field(ge=1, le=1_000_000, description="updates of the generator")]
    batch: Annotated[int, Field(ge=1, le=100_000, description="points of either kind in an update")]
    generator_rate: Annotated[float, Field(ge=0, le=1, description="learning rate of Adam, for the generator")]
    discriminator_rate: Annotated[float, Field(ge=0, le=1, description="learning rate of Adam, for the discriminator")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    sample_steps: Annotated[int, Field(ge=1, description="updates between two pictures of what the generator draws")]
    game: Annotated[Literal[*GAMES], Field(description="what the two players minimise")] = "non_saturating"
    penalty: Annotated[
        Literal[*PENALTIES] | None, Field(description="on the discriminator's slope; it needs a weight; or none")
    ] = None
    penalty_weight: Annotated[float, Field(ge=0, description="of the penalty: its lambda, or its gamma")] = 0.0
    flip_probability: Annotated[float, Field(ge=0, le=1, description='share of real points that are called "fake"')] = (
        0.0
    )
    real_target: Annotated[float, Field(ge=0, le=1, description="what the discriminator shall say of real points")] = (
        1.0
    )
    instance_noise_std: Annotated[
        float, Field(ge=0, le=100, description="noise on all that the discriminator sees; it falls to 0")
    ] = 0.0
    spectral_norm: Annotated[bool, Field(description="hold the largest singular value of D's layers at 1")] = False
    discriminator_dropout: Annotated[float, Field(ge=0, lt=1, description="share of D's hidden numbers dropped")] = 0.0
    generator_width: Annotated[int, Field(ge=1, le=10_000, description="outputs of the generator's hidden layers")] = 64
    discriminator_width: Annotated[
        int, Field(ge=1, le=10_000, description="outputs of the discriminator's hidden layers")
    ] = 64
    depth: Annotated[int, Field(ge=1, le=100, description="hidden layers of either network")] = 2
    discriminator_steps: Annotated[
        int, Field(ge=1, le=1000, description="updates of the discriminator for each of the generator")
    ] = 1
    unrolled_steps: Annotated[
        int, Field(ge=0, le=100, description="the discriminator's answers that the generator looks ahead")
    ] = 0
    unrolled_rate: Annotated[float, Field(ge=0, le=100, description="learning rate of these answers")] = 0.0
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 2
    beta1: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean gradient")] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient")] = 0.99


Settings = ToyGAN


def _generator(settings: ToyGAN, form: ImageForm) -> Generator:
    return Generator(latent_dim=settings.latent_dim, width=settings.generator_width, depth=settings.depth)


def _discriminator(settings: ToyGAN, form: ImageForm) -> Discriminator:
    network = Discriminator(
        width=settings.discriminator_width, depth=settings.depth, dropout=settings.discriminator_dropout
    )
    if settings.spectral_norm:
        for layer in network.layers:
            if isinstance(layer, nn.Linear):
                spectral_norm(layer)
    return network


NETWORKS: Mapping[str, Callable[[ToyGAN, ImageForm], nn.Module]] = {
    "generator": _generator,
    "discriminator": _discriminator,
}


class Prepared(NamedTuple):
    """The data, and the real points that fakes are compared with: the same ones in every run."""

    data: toy.GaussianMixture
    points: Float[Tensor, "points 2"]


def prepare(settings: ToyGAN, *, seed: int) -> Prepared:
    """Make the data, and refuse settings that contradict each other.

    Raises:
        InputError: two settings cannot go together, one does nothing without another, or there are several processes.
    """
    _check(settings)
    data = SOURCES[settings.data](std=settings.data_std)
    with runtime.random_states_kept():
        torch.manual_seed(0)
        return Prepared(data, data.sample(POINTS))


def train(
    settings: ToyGAN,
    prepared: Prepared,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train both players; save pictures of where the generator's points lie, and a curve.

    `show` gets such a picture on the way, in place of the folder, and the number of updates made.
    """
    accelerator = runtime.start(seed, "float32", threads=1)
    data = prepared.data
    generator, discriminator = (build(settings, data.form) for build in NETWORKS.values())
    betas = (settings.beta1, settings.beta2)
    optimizers = [
        Adam(player.parameters(), lr=rate, betas=betas, fused=True)
        for player, rate in ((generator, settings.generator_rate), (discriminator, settings.discriminator_rate))
    ]
    players = Players(*accelerator.prepare(generator, discriminator, *optimizers))
    draw_points = drawing(generator, fixed_latents(POINTS, settings.latent_dim, seed=0))
    training = Training(
        name="toy_gan",
        step=_step(settings, data, players, accelerator.backward),
        evaluate=lambda: _coverage(data, draw_points()),
        steps=settings.steps,
        report_steps=max(1, settings.steps // REPORTS),
        optimizers=[players.generator_optimizer, players.discriminator_optimizer],
        shown={"modes_covered": ".0f"},
        draw=lambda: _picture(data, draw_points()),
        draw_steps=settings.sample_steps,
    )
    fitted = shared.fit_in(folder, training, accelerator, settings.checkpoint_steps, show=show)
    if folder is not None:
        curves = {
            "modes covered": [line["modes_covered"] / data.modes for line in fitted.history],
            "good points": [line["good_share"] for line in fitted.history],
        }
        axes = plotting.accuracy_curves(curves)
        axes.set(xlabel=f"updates / {training.report_steps}", ylabel="share")
        folder.save_picture("curve", axes)
    networks = {"generator": generator.eval(), "discriminator": discriminator.eval()}
    return shared.Outcome(networks, measure(settings, prepared, networks), {"toy_gan": fitted})


def measure(settings: ToyGAN, prepared: Prepared, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return what a generator covers, how many of its points are good, and how well a new detective tells them.

    modes_covered: how many modes got at least FAIR_SHARE of the points that are due to them.
    good_share: of the points, those within three standard deviations of a mode.
    detective_accuracy: of `fresh_detective_accuracy`, 1/2 at best.
    """
    if "generator" not in networks:
        return {}
    fakes = drawing(networks["generator"], fixed_latents(POINTS, settings.latent_dim, seed=0))()
    accuracy = fresh_detective_accuracy(prepared.points, fakes)
    return _coverage(prepared.data, fakes) | {"detective_accuracy": accuracy}


def sample(
    settings: ToyGAN, networks: Mapping[str, nn.Module], count: int, *, seed: int
) -> Float[Tensor, "count 1 side side"]:
    """Draw pictures in [-1, 1] of where points lie, POINTS other ones in each: the brighter, the more of them.

    Raises:
        InputError: there is no generator among these networks.
    """
    if "generator" not in networks:
        raise InputError(f"nothing here can draw: it holds {', '.join(networks)}, and no generator")
    latents = fixed_latents(count * POINTS, settings.latent_dim, seed)
    points = drawing(networks["generator"], latents)()
    data = SOURCES[settings.data](std=settings.data_std)
    return torch.cat([_picture(data, some) for some in points.split(POINTS)])


def _step(
    settings: ToyGAN, data: toy.GaussianMixture, players: Players, backward: Callable[[Tensor], None]
) -> Callable[[int], dict[str, Tensor]]:
    game, penalty, device = game_of(settings), penalty_of(settings), runtime.device()
    of_generator = generator_step
    if settings.unrolled_steps:
        of_generator = partial(
            unrolled_generator_step, unrolled_steps=settings.unrolled_steps, rate=settings.unrolled_rate
        )

    def update(number: int) -> dict[str, Tensor]:
        noise_std = settings.instance_noise_std * (1 - number / settings.steps)
        for _ in range(settings.discriminator_steps):
            real = data.sample(settings.batch).to(device)
            fake = players.generator(torch.randn(settings.batch, settings.latent_dim, device=device))
            if noise_std > 0:
                real = real + noise_std * torch.randn_like(real)
                fake = fake + noise_std * torch.randn_like(fake)
            losses = discriminator_step(players, real, fake.detach(), game=game, penalty=penalty, backward=backward)
        return losses | of_generator(players, real, fake, game=game, backward=backward)

    return update


def _coverage(data: toy.GaussianMixture, fakes: Float[Tensor, "points 2"]) -> dict[str, float]:
    due = len(fakes) / data.modes
    good = (data.modes_of(fakes) >= 0).float().mean()
    covered = data.modes_covered(fakes, at_least=max(1, round(FAIR_SHARE * due)))
    return {"modes_covered": float(covered), "good_share": good.item()}


def _picture(data: toy.GaussianMixture, points: Float[Tensor, "points 2"]) -> Float[Tensor, "1 1 side side"]:
    edge = 1.5 * data.centres.abs().max().item()
    counts = torch.histogramdd(points, [PICTURE_PX, PICTURE_PX], range=[-edge, edge] * 2).hist
    brightness = counts.log1p()
    brightness = brightness / brightness.max().clamp_min(1)
    return (2 * brightness.T.flip(0) - 1)[None, None]  # rows go from the largest y down


def _check(settings: ToyGAN) -> None:
    found = contradictions(settings) | {
        f"unrolled_steps={settings.unrolled_steps} and unrolled_rate={settings.unrolled_rate:g} contradict each other: "
        "unrolled steps need a rate above 0, and a rate needs steps": (
            (settings.unrolled_steps == 0) != (settings.unrolled_rate == 0)
        ),
        f"unrolled_steps={settings.unrolled_steps} look ahead without the penalty, which decides what the "
        "discriminator answers: use one of the two": settings.unrolled_steps > 0 and settings.penalty is not None,
        f"unrolled_steps={settings.unrolled_steps} and spectral_norm=True cannot go together: its power iteration "
        "changes while the generator looks ahead; use one of the two": (
            settings.unrolled_steps > 0 and settings.spectral_norm
        ),
        f"found {runtime.processes()} processes: a GAN in the plane is too small to share; use one": (
            runtime.processes() > 1
        ),
    }
    refuse(found)
