"""A conditional GAN: ask for a class, or for a caption such as "bold slanted seven", and get a picture of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from course_lib import runtime
from course_lib.data import captions
from course_lib.data.batches import ShuffledIndices
from course_lib.data.captions import Captioned, conditions_of
from course_lib.data.images import ImageData, ImageForm, load, to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.captions import CaptionReader, caption_reader
from course_lib.evaluation.frechet import frechet_distance
from course_lib.losses.adversarial import GAMES
from course_lib.models.conditional_gan import (
    CONDITIONINGS,
    EmbeddingDiscriminator,
    Generator,
    ProjectionDiscriminator,
)
from course_lib.recipes import players, shared
from course_lib.recipes.game import PENALTIES
from course_lib.recipes.players import NORMS
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.samples import fixed_latents
from course_lib.training.steps import Players, adversarial_step

PER_CAPTION = 50  # pictures of each caption that are read to see whether it was obeyed


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class ConditionalGAN:
    """The settings of a conditional GAN. A condition is the class of a picture, or its caption.

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
    captions: Annotated[bool, Field(description="digits made bold or slanted, and asked for by captions")] = False
    withheld: Annotated[
        str, Field(description='captions that no picture of the training has: "bold seven, slanted two"')
    ] = ""
    conditioning: Annotated[
        Literal[*CONDITIONINGS], Field(description="how the discriminator is told the condition")
    ] = "projection"
    side_px: Annotated[int | None, Field(ge=1, description="resize the pictures to so many pixels a side")] = None
    validation: Annotated[
        int, Field(ge=0, description="measure on so many training pictures set aside, not on the test pictures")
    ] = 0
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 100
    embedding_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in the generator's condition")] = 16
    generator_width: Annotated[int, Field(ge=1, le=1024, description="the generator's maps at half of the side")] = 64
    discriminator_width: Annotated[
        int, Field(ge=1, le=1024, description="the discriminator's maps at half of the side")
    ] = 64
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


Settings = ConditionalGAN


def _attributes(settings: ConditionalGAN, form: ImageForm) -> tuple[int, ...]:
    return captions.ATTRIBUTES if settings.captions else (form.classes,)


def _generator(settings: ConditionalGAN, form: ImageForm) -> Generator:
    return Generator(
        channels=form.channels,
        side_px=form.side_px,
        attributes=_attributes(settings, form),
        latent_dim=settings.latent_dim,
        embedding_dim=settings.embedding_dim,
        width=settings.generator_width,
    )


def _discriminator(settings: ConditionalGAN, form: ImageForm) -> nn.Module:
    kinds = dict(zip(CONDITIONINGS, (EmbeddingDiscriminator, ProjectionDiscriminator), strict=True))
    network = kinds[settings.conditioning](
        channels=form.channels,
        side_px=form.side_px,
        attributes=_attributes(settings, form),
        width=settings.discriminator_width,
        batch_norm=settings.discriminator_norm == "batch",
    )
    return players.with_spectral_norm(network) if settings.discriminator_norm == "spectral" else network


NETWORKS: Mapping[str, Callable[[ConditionalGAN, ImageForm], nn.Module]] = {
    "generator": _generator,
    "discriminator": _discriminator,
}


@dataclass(frozen=True)
class Prepared(shared.Judged):
    """The pictures, the condition of each, who judges those that a generator draws, and who reads captions off them.

    Where there are captions, `data` has every picture in its four forms, without those whose caption is withheld.
    """

    train_conditions: Int[Tensor, "train *attributes"]
    test_conditions: Int[Tensor, "test *attributes"]
    reader: CaptionReader | None = None


def prepare(settings: ConditionalGAN, *, seed: int) -> Prepared:
    """Load the pictures, and write captions where the settings ask for some.

    Raises:
        InputError: the data cannot be had, two settings contradict each other, or they do not fit the pictures.
    """
    players.check(settings)
    if settings.withheld and not settings.captions:
        raise InputError(f"withheld={settings.withheld!r} needs captions: add captions=True (--captions)")
    data = load(settings.data, side_px=settings.side_px, validation=settings.validation)
    for build in NETWORKS.values():
        build(settings, data.form)  # a network refuses a form that it cannot have
    judge = shared.judged(data).judge
    if not settings.captions:
        return Prepared(data, judge, data.train_labels, data.test_labels)
    train, test = captions.captioned(data)
    reader = caption_reader(judge, train) if judge else None
    # (pictures, 1, 3) against (withheld, 3): a picture stays where it has none of these captions.
    stay = ~(train.conditions[:, None] == withheld_conditions(settings)).all(dim=2).any(dim=1)
    train = Captioned(*(one[stay] for one in train))
    data = replace(
        data,
        train_images=train.images,
        train_labels=train.conditions[:, 0],
        test_images=test.images,
        test_labels=test.conditions[:, 0],
    )
    return Prepared(data, judge, train.conditions, test.conditions, reader)


def withheld_conditions(settings: ConditionalGAN) -> Int[Tensor, "withheld 3"]:
    """Return the captions that no picture of the training has, as conditions.

    Raises:
        InputError: one cannot be read.
    """
    return conditions_of([text for text in settings.withheld.split(",") if text.strip()])


def train(
    settings: ConditionalGAN,
    prepared: Prepared,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train both players; see `players.train`.

    `show` gets the pictures on the way, in place of the folder, and the number of updates made.
    """
    form = prepared.data.form
    return players.train(
        "cgan",
        settings,
        prepared.data,
        NETWORKS,
        _update(settings, prepared, seed=seed),
        seed=seed,
        inputs=lambda count, seed: (
            fixed_latents(count, settings.latent_dim, seed),
            spread_conditions(_attributes(settings, form), count),
        ),
        measure=lambda generator: measure(settings, prepared, {"generator": generator}),
        folder=folder,
        show=show,
    )


def spread_conditions(attributes: tuple[int, ...], count: int) -> Int[Tensor, "count attributes"]:
    """Return conditions in equal shares and in order: eight each of 80 for ten classes."""
    every = torch.cartesian_prod(*(torch.arange(values) for values in attributes)).reshape(-1, len(attributes))
    return every[torch.arange(count) * len(every) // count]


def measure(settings: ConditionalGAN, prepared: Prepared, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return what the judge of the data finds in pictures of the generator.

    classifier_frechet: the distance of `frechet_distance` on the judge's features, from as many pictures as there are
        test pictures, asked for by their conditions.
    class_accuracy: share of them whose class is the one asked for. With captions:
    digit_accuracy, bold_accuracy, slanted_accuracy, caption_accuracy: share of pictures, PER_CAPTION of each caption
        that the training has, that show what was asked for; the last one in all three.
    withheld_…: the same for captions that the training has not.
    real_…: the same for the test pictures themselves, the most that can be hoped for.
    """
    if prepared.judge is None or "generator" not in networks:
        return {}
    real = to_unit_range(prepared.data.test_images)
    latents = fixed_latents(len(real), settings.latent_dim, seed=0)
    fake = players.draw(networks, latents, prepared.test_conditions)
    of_real, of_fake = prepared.judge.features(real), prepared.judge.features(fake)
    found = {"classifier_frechet": frechet_distance(of_real, of_fake)}
    if prepared.reader is None:
        right = prepared.judge.classes(fake) == prepared.test_conditions
        return found | {"class_accuracy": right.float().mean().item()}
    reader, withheld = prepared.reader, withheld_conditions(settings)
    count = PER_CAPTION * torch.tensor(captions.ATTRIBUTES).prod().item()
    asked = spread_conditions(captions.ATTRIBUTES, count)
    shown = reader.read(players.draw(networks, fixed_latents(count, settings.latent_dim, seed=0), asked))
    unseen = (asked[:, None] == withheld).all(dim=2).any(dim=1)
    found |= _obeyed(shown[~unseen], asked[~unseen])
    if unseen.any():
        found |= _obeyed(shown[unseen], asked[unseen], "withheld_")
    return found | _obeyed(reader.read(real), prepared.test_conditions, "real_")


def _obeyed(shown: Int[Tensor, "n 3"], asked: Int[Tensor, "n 3"], prefix: str = "") -> dict[str, float]:
    right = shown == asked
    shares = [*right.float().mean(dim=0).tolist(), right.all(dim=1).float().mean().item()]
    return {f"{prefix}{name}_accuracy": x for name, x in zip((*captions.NAMES, "caption"), shares, strict=True)}


def sample(
    settings: ConditionalGAN, networks: Mapping[str, nn.Module], count: int, *, seed: int
) -> Float[Tensor, "count channels side side"]:
    """Draw pictures in [-1, 1], as many of each class or caption, in their order: of 80 digits eight of each.

    Raises:
        InputError: there is no generator among these networks.
    """
    latents = fixed_latents(count, settings.latent_dim, seed)
    attributes = networks["generator"].embedding.attributes if "generator" in networks else (1,)
    return players.draw(networks, latents, spread_conditions(attributes, count))


def sample_of(
    settings: ConditionalGAN,
    networks: Mapping[str, nn.Module],
    conditions: Int[Tensor, "count *attributes"],
    *,
    seed: int,
) -> Float[Tensor, "count channels side side"]:
    """Draw a picture in [-1, 1] of each condition.

    Raises:
        InputError: there is no generator among these networks, or it does not know such conditions.
    """
    return players.draw(networks, fixed_latents(len(conditions), settings.latent_dim, seed), conditions)


def _update(settings: ConditionalGAN, prepared: Prepared, *, seed: int) -> Callable[..., dict[str, Tensor]]:
    device = runtime.device()
    pixels, conditions = prepared.data.train_images.to(device), prepared.train_conditions.to(device)
    order = ShuffledIndices(len(pixels), seed=seed)

    def update(number: int, both: Players, **how: Any) -> dict[str, Tensor]:
        chosen = shared.own_part(order.batch(number, settings.batch))
        latent = torch.randn(len(chosen), settings.latent_dim, device=device)
        return adversarial_step(both, to_unit_range(pixels[chosen]), latent, conditions[chosen], **how)

    return update
