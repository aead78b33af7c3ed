"""Image to image: half a digit, a coarse one or the last frame is given, and the whole image is wanted.

A GAN whose discriminator sees the given image, too, beside a regression with the same network.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from course_lib import runtime
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageData, ImageForm, load, to_unit_range
from course_lib.data.pairs import TASKS
from course_lib.evaluation.frechet import frechet_distance
from course_lib.losses.adversarial import GAMES
from course_lib.losses.diversity import mode_seeking_loss
from course_lib.models.image_to_image import Discriminator, Generator
from course_lib.recipes import players, shared
from course_lib.recipes.game import PENALTIES
from course_lib.recipes.players import NORMS
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.average import RunningAverage
from course_lib.training.samples import fixed_latents
from course_lib.training.steps import Players, discriminator_step, generator_step, regression_step

DRAWS = 8  # of each of so many given pictures, to see how much they differ
VARIED = 200
ROW = 8  # pictures of a sample that belong together: the given one, a right answer, the regression's, the GAN's


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class ImageToImage:
    """The settings of a GAN that turns one picture into another, and of its rival, a regression with its generator.

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
    task: Annotated[Literal[*TASKS], Field(description="what is given: half, coarse pixels or the last frame")] = "half"
    l1_weight: Annotated[
        float, Field(ge=0, le=10_000, description="of the mean absolute difference, in the generator's loss")
    ] = 10.0
    diversity_weight: Annotated[
        float, Field(ge=0, le=10_000, description="of the reward for other pictures from other latents")
    ] = 0.0
    side_px: Annotated[int | None, Field(ge=1, description="resize the pictures to so many pixels a side")] = None
    validation: Annotated[
        int, Field(ge=0, description="measure on so many training pictures set aside, not on the test pictures")
    ] = 0
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 16
    generator_width: Annotated[int, Field(ge=1, le=1024, description="the generator's maps at half of the side")] = 32
    discriminator_width: Annotated[
        int, Field(ge=1, le=1024, description="the discriminator's maps at half of the side")
    ] = 32
    discriminator_norm: Annotated[
        Literal[*NORMS], Field(description="what keeps the discriminator's layers in bounds: batch or spectral norm")
    ] = "batch"
    game: Annotated[Literal[*GAMES], Field(description="what the two players minimise")] = "non_saturating"
    penalty: Annotated[
        Literal[*PENALTIES] | None, Field(description="on the discriminator's slope; it needs a penalty weight")
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


Settings = ImageToImage


def _generator(settings: ImageToImage, form: ImageForm) -> Generator:
    return Generator(
        channels=form.channels,
        side_px=form.side_px,
        latent_dim=settings.latent_dim,
        width=settings.generator_width,
    )


def _discriminator(settings: ImageToImage, form: ImageForm) -> nn.Module:
    network = Discriminator(
        channels=form.channels,
        side_px=form.side_px,
        width=settings.discriminator_width,
        batch_norm=settings.discriminator_norm == "batch",
    )
    return players.with_spectral_norm(network) if settings.discriminator_norm == "spectral" else network


NETWORKS: Mapping[str, Callable[[ImageToImage, ImageForm], nn.Module]] = {
    "generator": _generator,
    "discriminator": _discriminator,
    "regression": _generator,
}


def prepare(settings: ImageToImage, *, seed: int) -> shared.Judged:
    """Load the pictures.

    Raises:
        InputError: the data cannot be had, two settings contradict each other, or they do not fit the pictures.
    """
    players.check(settings)
    data = _load(settings)
    for build in NETWORKS.values():
        build(settings, data.form)  # a network refuses a form that it cannot have
    TASKS[settings.task].given(to_unit_range(data.test_images[:1]))  # as a task refuses a side
    return shared.judged(data)


def train(
    settings: ImageToImage,
    prepared: shared.Judged,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train the regression, then both players; see `players.train`.

    `show` gets the pictures of the GAN on the way, in place of the folder, and the number of updates made.
    """
    regression = train_regression(settings, prepared, seed=seed, folder=folder)
    gan = players.train(
        "image_to_image",
        settings,
        prepared.data,
        NETWORKS,
        _update(settings, prepared.data, seed=seed),
        seed=seed,
        inputs=_inputs(settings, prepared.data),
        measure=lambda generator: measure(settings, prepared, {"generator": generator}),
        folder=folder,
        show=show,
    )
    return shared.Outcome(
        networks={**gan.networks, **regression.networks},
        metrics=gan.metrics | regression.metrics,
        fitted={**regression.fitted, **gan.fitted},
    )


def train_regression(
    settings: ImageToImage, prepared: shared.Judged, *, seed: int, folder: RunFolder | None = None
) -> shared.Outcome:
    """Train the generator's network alone, on the mean squared difference; its latents are 0."""
    data = prepared.data
    accelerator = runtime.start(seed, settings.precision, settings.threads)
    network = _generator(settings, data.form).to(memory_format=torch.channels_last)
    average = RunningAverage(network, settings.average, runtime.device())
    optimizer = players.adam(network, settings, settings.generator_rate)
    regression, optimizer = accelerator.prepare(network, optimizer)
    batch = _batches(settings, data, seed=seed)

    def step(number: int) -> dict[str, Tensor]:
        given, wanted = batch(number)
        latent = given.new_zeros(len(given), settings.latent_dim)
        return regression_step(regression, optimizer, latent, given, wanted, backward=accelerator.backward)

    fitted, kept = players.fit_generator(
        "regression",
        settings,
        data,
        average,
        step,
        accelerator,
        [optimizer],
        inputs=_inputs(settings, data, scale=0.0),
        measure=lambda network: measure(settings, prepared, {"regression": network}),
        seed=seed,
    )
    return shared.Outcome(
        {"regression": kept}, measure(settings, prepared, {"regression": kept}), {"regression": fitted}
    )


def measure(settings: ImageToImage, prepared: shared.Judged, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return how good a generator's answers to the test pictures are; those of the regression begin with its name.

    psnr_db: 10 log10(4 / mean squared difference from the right answer, from the nearer one where there are two).
    variety: standard deviation of a pixel over DRAWS latents, averaged over pixels and VARIED given pictures.
    class_accuracy, classifier_frechet: what the judge of the data, where there is one, says of the answers: the share
        of those with the class of the right answer, and the distance of `frechet_distance`.
    """
    task, data = TASKS[settings.task], prepared.data
    images = to_unit_range(data.test_images)
    given, found = task.given(images), {}
    for name, prefix in (("generator", ""), ("regression", "regression_")):
        if name not in networks:
            continue
        drawn = answers_of(settings, networks, given, by=name, seed=0)
        error, judged = task.nearest(drawn, images)
        found[f"{prefix}psnr_db"] = 10 * torch.log10(4 / error.mean()).item()
        if name == "generator":
            repeated = given[:VARIED].repeat_interleave(DRAWS, dim=0)
            draws = answers_of(settings, networks, repeated, by=name, seed=0)
            found["variety"] = draws.unflatten(0, (-1, DRAWS)).std(dim=1).mean().item()
        if prepared.judge:
            right = prepared.judge.classes(judged) == data.test_labels
            found[f"{prefix}class_accuracy"] = right.float().mean().item()
            features = [prepared.judge.features(one) for one in (images, judged)]
            found[f"{prefix}classifier_frechet"] = frechet_distance(*features)
    return found


def answers_of(
    settings: ImageToImage,
    networks: Mapping[str, nn.Module],
    given: Float[Tensor, "count channels side side"],
    *,
    by: str = "generator",
    seed: int,
) -> Float[Tensor, "count channels side side"]:
    """Turn each given picture into another, by the "generator" or by the "regression", whose latents are 0.

    Raises:
        InputError: there is no such network among these.
    """
    latents = fixed_latents(len(given), settings.latent_dim, seed) * (by == "generator")
    return players.draw(networks, latents, given, by=by)


def sample(
    settings: ImageToImage, networks: Mapping[str, nn.Module], count: int, *, seed: int
) -> Float[Tensor, "count channels side side"]:
    """Draw pictures in [-1, 1], ROW for each of some test pictures.

    They are: what is given, a right answer, the regression's answer where there is a regression, and answers of the
    generator.

    Raises:
        InputError: there is no generator among these networks, or the data cannot be had.
    """
    data, task = _load(settings), TASKS[settings.task]
    rows = -(-count // ROW)
    order = torch.randperm(len(data.test_images), generator=torch.Generator().manual_seed(seed))
    images = to_unit_range(data.test_images[order[torch.arange(rows) % len(order)]])
    given = task.given(images)
    columns = [given, task.answers(images)[-1]]
    if "regression" in networks:
        columns.append(answers_of(settings, networks, given, by="regression", seed=seed))
    draws = ROW - len(columns)
    drawn = answers_of(settings, networks, given.repeat_interleave(draws, dim=0), seed=seed)
    columns += drawn.unflatten(0, (rows, draws)).unbind(dim=1)
    return torch.stack(columns, dim=1).flatten(0, 1)[:count]


def _load(settings: ImageToImage) -> ImageData:
    return load(settings.data, side_px=settings.side_px, validation=settings.validation)


def _inputs(settings: ImageToImage, data: ImageData, *, scale: float = 1.0) -> players.Inputs:
    """Draw from the first training pictures, over and over if need be."""

    def inputs(count: int, seed: int) -> tuple[Tensor, Tensor]:
        some = data.train_images[torch.arange(count) % len(data.train_images)]
        latents = scale * fixed_latents(count, settings.latent_dim, seed)
        return latents, TASKS[settings.task].given(to_unit_range(some))

    return inputs


def _batches(settings: ImageToImage, data: ImageData, *, seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return a function from the number of an update to given pictures, and one of the right answers to each."""
    task, pixels = TASKS[settings.task], data.train_images.to(runtime.device())
    order = ShuffledIndices(len(pixels), seed=seed)

    def batch(number: int) -> tuple[Tensor, Tensor]:
        images = to_unit_range(pixels[shared.own_part(order.batch(number, settings.batch))])
        answers = task.answers(images)  # (answers, batch, channels, side, side)
        chosen = torch.randint(len(answers), (len(images),), device=images.device)
        return task.given(images), answers[chosen, torch.arange(len(images), device=images.device)]

    return batch


def _update(settings: ImageToImage, data: ImageData, *, seed: int) -> Callable[..., dict[str, Tensor]]:
    batch = _batches(settings, data, seed=seed)

    def update(
        number: int, both: Players, *, game: Any, penalty: Any, backward: Callable[[Tensor], None]
    ) -> dict[str, Tensor]:
        given, real = batch(number)
        latent = torch.randn(len(real), settings.latent_dim, device=real.device)
        fake = both.generator(latent, given)

        def reconstruction(fake: Tensor, real: Tensor) -> Tensor:
            loss = settings.l1_weight * l1_loss(fake, real)
            if settings.diversity_weight > 0:
                other_latent = torch.randn_like(latent)
                other = both.generator(other_latent, given)
                loss = loss + settings.diversity_weight * mode_seeking_loss(fake, other, latent, other_latent)
            return loss

        how = {"game": game, "backward": backward}
        losses = discriminator_step(both, real, fake.detach(), given, penalty=penalty, **how)
        return losses | generator_step(both, real, fake, given, reconstruction=reconstruction, **how)

    return update
