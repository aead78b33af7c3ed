"""DCGAN on any pictures: the data sets of the course, or a folder of one's own."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from course_lib import runtime
from course_lib.data.augment import DifferentiableAugmentation, mirrored_at_random
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageData, ImageForm, load, to_unit_range
from course_lib.losses.adversarial import GAMES
from course_lib.models.dcgan import KERNELS, Discriminator, Generator
from course_lib.recipes import players, shared
from course_lib.recipes.game import PENALTIES
from course_lib.recipes.players import NORMS
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.samples import fixed_latents
from course_lib.training.steps import Players, adversarial_step


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class DCGAN:
    """The settings of a DCGAN. Each remedy is off where its setting is 0, 1 (`real_target`), false or not given.

    The learning rates are constant for the part `hold` of the training and then fall to 0.
    """

    data: Annotated[str, Field(description="name of the data set, or folder:PATH for pictures of your own")]
    epochs: Annotated[int, Field(ge=1, le=100_000, description="how often the pictures are seen")]
    batch: Annotated[int, Field(ge=2, le=10_000, description="pictures of either kind in an update")]
    generator_rate: Annotated[float, Field(ge=0, le=1, description="learning rate of Adam, for the generator")]
    discriminator_rate: Annotated[float, Field(ge=0, le=1, description="learning rate of Adam, for the discriminator")]
    average: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights that is kept")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    sample_steps: Annotated[int, Field(ge=1, description="updates between two pictures of what the generator draws")]
    precision: Annotated[runtime.Precision, Field(description="auto: bfloat16 where the hardware has it, else float32")]
    threads: Annotated[int | None, Field(ge=1, le=1024, description="CPU threads; not given: as many as there are")]
    side_px: Annotated[int | None, Field(ge=1, description="resize the pictures to so many pixels a side")] = None
    validation: Annotated[
        int, Field(ge=0, description="measure on so many training pictures set aside, not on the test pictures")
    ] = 0
    memory_limit_mb: Annotated[
        float, Field(ge=0, description="pictures of a folder that take more million bytes stay in a file")
    ] = 1000.0
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 100
    kernel: Annotated[Literal[*KERNELS], Field(description="side of the kernels: 4 as DCGAN's, 5 as MathWorks'")] = 4
    generator_width: Annotated[int, Field(ge=1, le=1024, description="the generator's maps at half of the side")] = 64
    discriminator_width: Annotated[
        int, Field(ge=1, le=1024, description="the discriminator's maps at half of the side")
    ] = 64
    discriminator_norm: Annotated[
        Literal[*NORMS], Field(description="what keeps the discriminator's layers in bounds: batch or spectral norm")
    ] = "batch"
    discriminator_dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of the pixels dropped from what the discriminator sees")
    ] = 0.0
    mirror: Annotated[bool, Field(description="mirror half of the real pictures, left to right")] = False
    differentiable_augmentation: Annotated[
        DifferentiableAugmentation | None, Field(description="let the discriminator see all pictures unchanged")
    ] = None
    game: Annotated[Literal[*GAMES], Field(description="what the two players minimise")] = "non_saturating"
    penalty: Annotated[
        Literal[*PENALTIES] | None, Field(description="on the discriminator's slope; it needs a weight; or none")
    ] = None
    penalty_weight: Annotated[float, Field(ge=0, description="of the penalty: its lambda, or its gamma")] = 0.0
    penalty_steps: Annotated[
        int, Field(ge=1, le=1000, description="pay the penalty only in every so many-th update, so many times as much")
    ] = 1
    flip_probability: Annotated[
        float, Field(ge=0, le=1, description='share of real pictures that are called "fake"')
    ] = 0.0
    real_target: Annotated[
        float, Field(ge=0, le=1, description="what the discriminator shall say of real pictures")
    ] = 1.0
    beta1: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean gradient")] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient")] = 0.999
    hold: Annotated[float, Field(ge=0, le=1, description="part of the training with the full rate")] = 1.0


Settings = DCGAN


def _generator(settings: DCGAN, form: ImageForm) -> Generator:
    return Generator(
        channels=form.channels,
        side_px=form.side_px,
        latent_dim=settings.latent_dim,
        width=settings.generator_width,
        kernel=settings.kernel,
    )


def _discriminator(settings: DCGAN, form: ImageForm) -> Discriminator:
    network = Discriminator(
        channels=form.channels,
        side_px=form.side_px,
        width=settings.discriminator_width,
        kernel=settings.kernel,
        dropout=settings.discriminator_dropout,
        batch_norm=settings.discriminator_norm == "batch",
    )
    return players.with_spectral_norm(network) if settings.discriminator_norm == "spectral" else network


NETWORKS: Mapping[str, Callable[[DCGAN, ImageForm], nn.Module]] = {
    "generator": _generator,
    "discriminator": _discriminator,
}


def prepare(settings: DCGAN, *, seed: int) -> shared.Judged:
    """Load the pictures.

    Raises:
        InputError: the data cannot be had, two settings contradict each other, or they do not fit the pictures.
    """
    players.check(settings)
    data = load(
        settings.data,
        side_px=settings.side_px,
        validation=settings.validation,
        memory_limit_mb=settings.memory_limit_mb,
    )
    for build in NETWORKS.values():
        build(settings, data.form)  # a network refuses a form that it cannot have
    return shared.judged(data)


def train(
    settings: DCGAN,
    prepared: shared.Judged,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train both players; see `players.train`.

    `show` gets the pictures on the way, in place of the folder, and the number of updates made.
    """
    return players.train(
        "dcgan",
        settings,
        prepared.data,
        NETWORKS,
        _update(settings, prepared.data, seed=seed),
        seed=seed,
        inputs=lambda count, seed: (fixed_latents(count, settings.latent_dim, seed),),
        measure=lambda generator: measure(settings, prepared, {"generator": generator}),
        augmentation=settings.differentiable_augmentation,
        folder=folder,
        show=show,
    )


def measure(settings: DCGAN, prepared: shared.Judged, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return what the judge of the data finds in as many pictures of the generator as there are test pictures.

    For its scores see `shared.Judged.scores`.
    """
    if prepared.judge is None or "generator" not in networks:
        return {}
    return prepared.scores(sample(settings, networks, len(prepared.data.test_images), seed=0))


def sample(
    settings: DCGAN, networks: Mapping[str, nn.Module], count: int, *, seed: int
) -> Float[Tensor, "count channels side side"]:
    """Draw pictures in [-1, 1] with the generator.

    Raises:
        InputError: there is none among these networks.
    """
    return players.draw(networks, fixed_latents(count, settings.latent_dim, seed))


def _update(settings: DCGAN, data: ImageData, *, seed: int) -> Callable[..., dict[str, Tensor]]:
    device = runtime.device()
    order = ShuffledIndices(len(data.train_images), seed=seed)
    pixels = data.train_images
    if pixels.nbytes <= settings.memory_limit_mb * 1e6:  # others stay in their file
        pixels = pixels.to(device)

    def update(number: int, both: Players, **how: Any) -> dict[str, Tensor]:
        chosen = shared.own_part(order.batch(number, settings.batch))
        real = to_unit_range(pixels[chosen.to(pixels.device)].to(device))
        if settings.mirror:
            real = mirrored_at_random(real)
        latent = torch.randn(len(real), settings.latent_dim, device=device)
        return adversarial_step(both, real, latent, **how)

    return update
