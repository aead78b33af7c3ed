"""The semi-supervised GAN and its baseline: one network, with and without the pictures that have no label."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.optim import Optimizer

from course_lib import plotting, runtime
from course_lib.data.augment import RandomAffine
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageData, ImageForm, load, to_unit_range
from course_lib.data.labels import choose_labelled
from course_lib.errors import InputError
from course_lib.evaluation.accuracy import accuracy
from course_lib.models.classifier import Classifier
from course_lib.models.semi_supervised_gan import Generator
from course_lib.recipes import shared
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.average import RunningAverage
from course_lib.training.fit import Fitted, Training, hold_then_fall
from course_lib.training.samples import drawing, fixed_latents
from course_lib.training.steps import (
    Players,
    semi_supervised_discriminator_step,
    semi_supervised_step,
    supervised_step,
)

# What may be taken away from the semi-supervised GAN, to see what it was good for.
ABLATIONS = {
    "no_unlabelled": "the labelled pictures serve as the unlabelled ones, too: no other picture is seen",
    "no_feature_matching": "the generator minimises the non-saturating loss of a plain GAN",
    "real_fakes": "real pictures stand in for generated ones: a generator that is too good",
    "noise_fakes": "pictures of noise stand in for generated ones: a generator that has learnt nothing",
}
Ablation = Literal[*ABLATIONS]
_ABLATED = "; ".join(f"{name}: {meaning}" for name, meaning in ABLATIONS.items())
SAMPLES = 40


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class SemiSupervised:
    """The settings of a semi-supervised GAN and of its baseline, which share all of them.

    The learning rate is constant for the part `hold` of the training and then falls to 0. `beta1` and `beta2` are
    Adam's decay of the mean gradient and of the mean squared one. Once the few labels are learnt both are nearly 0, and
    one rare large gradient makes a large step. With 100 labels of MNIST and 0.999 such a step was seen to undo a
    training; with 0.99 the mean square follows sooner, and the step stays small.
    """

    data: Annotated[str, Field(description="name of the data set")]
    labels: Annotated[int, Field(ge=1, description="how many training pictures keep their label")]
    epochs: Annotated[int, Field(ge=1, le=10_000, description="how often the unlabelled pictures are seen")]
    learning_rate: Annotated[float, Field(ge=0, le=1, description="of Adam, for both players")]
    noise_std: Annotated[float, Field(ge=0, le=10, description="noise added to what the classifier sees")]
    dropout: Annotated[float, Field(ge=0, lt=1, description="share of the classifier's features that are dropped")]
    augmentation: Annotated[RandomAffine | None, Field(description="leave the pictures as they are")]
    augment_unlabelled: Annotated[bool, Field(description="change the unlabelled pictures at random, too")]
    average: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights that is kept")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    sample_steps: Annotated[int, Field(ge=1, description="updates between two pictures of what the generator draws")]
    precision: Annotated[runtime.Precision, Field(description="auto: bfloat16 where the hardware has it, else float32")]
    threads: Annotated[int | None, Field(ge=1, le=1024, description="CPU threads; not given: as many as there are")]
    validation: Annotated[
        int, Field(ge=0, description="measure on so many training pictures set aside, not on the test pictures")
    ] = 0
    ablation: Annotated[Ablation | None, Field(description=f"take something away: {_ABLATED}")] = None
    side_px: Annotated[int | None, Field(ge=1, description="resize the pictures to so many pixels a side")] = None
    labelled_batch: Annotated[int, Field(ge=1, le=100_000, description="labelled pictures in an update")] = 50
    unlabelled_batch: Annotated[int, Field(ge=1, le=100_000, description="unlabelled pictures in an update")] = 100
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 100
    beta1: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean gradient")] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient")] = 0.999
    hold: Annotated[float, Field(ge=0, le=1, description="part of the training with the full rate")] = 0.3

    @property
    def metric(self) -> str:
        """Under which name accuracy is recorded."""
        return "validation_accuracy" if self.validation else "test_accuracy"


def _classifier(settings: SemiSupervised, form: ImageForm) -> Classifier:
    return Classifier(**form._asdict(), noise_std=settings.noise_std, dropout=settings.dropout)


def _generator(settings: SemiSupervised, form: ImageForm) -> Generator:
    return Generator(channels=form.channels, side_px=form.side_px, latent_dim=settings.latent_dim)


Settings = SemiSupervised
Networks = Mapping[str, Callable[[SemiSupervised, ImageForm], nn.Module]]
# How each network of a run is made, by the name of its file: what trains a run and what loads one asks here.
NETWORKS: Networks = {"baseline": _classifier, "discriminator": _classifier, "generator": _generator}


class Prepared(NamedTuple):
    """The pictures, and which of the training pictures keep their label."""

    data: ImageData
    labelled: Bool[Tensor, " train"]


@dataclass(frozen=True)
class Trained:
    """A trained classifier, what happened on the way, and the generator that it played against, if any."""

    classifier: nn.Module
    fitted: Fitted
    generator: nn.Module | None = None

    @property
    def history(self) -> list[dict[str, float]]:
        """One line for each epoch: mean losses, and the accuracy."""
        return self.fitted.history


def prepare(settings: SemiSupervised, *, seed: int) -> Prepared:
    """Load the pictures and choose whose label is kept.

    Raises:
        InputError: the data cannot be had, or the settings do not fit them.
    """
    for batch in ("labelled_batch", "unlabelled_batch"):
        shared.check_batch(batch, getattr(settings, batch))
    data = load(settings.data, side_px=settings.side_px, validation=settings.validation)
    for build in NETWORKS.values():
        build(settings, data.form)  # a network refuses a form that it cannot have
    labelled = choose_labelled(data.train_labels, settings.labels, classes=data.classes, seed=seed)
    return Prepared(data, labelled)


def train_baseline(
    settings: SemiSupervised,
    data: ImageData,
    labelled: Bool[Tensor, " train"],
    *,
    seed: int,
    networks: Networks = NETWORKS,
    step: Callable[..., dict[str, Tensor]] = supervised_step,
    folder: RunFolder | None = None,
) -> Trained:
    """Train the classifier on the labelled pictures alone.

    `networks["baseline"]` and `step` may be others, of the same form.
    """
    accelerator = runtime.start(seed, settings.precision, settings.threads)
    network = networks["baseline"](settings, data.form)
    average = shared.start_average(network, data, decay=settings.average)
    optimizer = shared.adam(network, settings)
    classifier, optimizer = accelerator.prepare(network, optimizer)
    labelled_batch = _labelled_batches(settings, data, labelled, seed)

    def update(number: int) -> dict[str, Tensor]:
        images, labels = labelled_batch(number)
        backward = accelerator.backward
        return step(classifier, optimizer, images, labels, backward=backward)

    training = _training("baseline", settings, data, average, update, [optimizer])
    return _fit(training, settings, accelerator, folder)


def train_ssgan(
    settings: SemiSupervised,
    data: ImageData,
    labelled: Bool[Tensor, " train"],
    *,
    seed: int,
    networks: Networks = NETWORKS,
    step: Callable[..., dict[str, Tensor]] | None = None,
    show: Callable[[int, Tensor], None] | None = None,
    folder: RunFolder | None = None,
) -> Trained:
    """Train the same classifier, from the same first weights, as a discriminator.

    Every training picture, labelled or not, serves as an unlabelled one.

    `networks["discriminator"]`, `networks["generator"]` and `step` may be others, of
    the same form. `show` gets what the generator draws on the way, from latent
    vectors that stay the same.
    """
    accelerator = runtime.start(seed, settings.precision, settings.threads)
    network = networks["discriminator"](settings, data.form)
    average = shared.start_average(network, data, decay=settings.average)
    generator = networks["generator"](settings, data.form)
    generator.to(memory_format=torch.channels_last)
    optimizers = [shared.adam(player, settings) for player in (generator, network)]
    players = Players(*accelerator.prepare(generator, network, *optimizers))
    labelled_batch = _labelled_batches(settings, data, labelled, seed)
    unlabelled_batch = _unlabelled_batches(settings, data, labelled, seed)
    step = step or _step(settings, data)

    def update(number: int) -> dict[str, Tensor]:
        images, labels = labelled_batch(number)
        unlabelled = unlabelled_batch(number)
        count, device = len(unlabelled), unlabelled.device
        latent = torch.randn(count, settings.latent_dim, device=device)
        backward = accelerator.backward
        return step(players, images, labels, unlabelled, latent, backward=backward)

    optimizers = [players.generator_optimizer, players.discriminator_optimizer]
    training = _training("ssgan", settings, data, average, update, optimizers)
    latents = fixed_latents(SAMPLES, settings.latent_dim, seed)
    training.draw = drawing(generator, latents)
    trained = _fit(training, settings, accelerator, folder, show)
    unwrapped = accelerator.unwrap_model(players.generator, keep_fp32_wrapper=False)
    return replace(trained, generator=unwrapped.eval())


def train(
    settings: SemiSupervised, prepared: Prepared, *, seed: int, folder: RunFolder | None = None
) -> shared.Outcome:
    """Train the baseline, then the semi-supervised GAN, and save weights and curve."""
    baseline = train_baseline(settings, *prepared, seed=seed, folder=folder)
    show = folder.save_samples if folder else None
    ssgan = train_ssgan(settings, *prepared, seed=seed, folder=folder, show=show)
    both = {"supervised baseline": baseline, "semi-supervised GAN": ssgan}
    curves = {name: [epoch[settings.metric] for epoch in trained.history] for name, trained in both.items()}
    if folder is not None and runtime.is_main_process():
        folder.save_picture("curve", plotting.accuracy_curves(curves))
    of_baseline, of_ssgan = (curve[-1] for curve in curves.values())
    return shared.Outcome(
        networks={"baseline": baseline.classifier, "discriminator": ssgan.classifier, "generator": ssgan.generator},
        metrics={
            settings.metric: of_ssgan,
            f"baseline_{settings.metric}": of_baseline,
            "gain_points": round(100 * (of_ssgan - of_baseline), 4),
        },
        fitted={"baseline": baseline.fitted, "ssgan": ssgan.fitted},
    )


def measure(settings: SemiSupervised, prepared: Prepared, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the accuracy of the classifiers among these networks, by the names that it has in a record."""
    images = to_unit_range(prepared.data.test_images)
    keys = {"discriminator": settings.metric, "baseline": f"baseline_{settings.metric}"}
    return {
        key: accuracy(networks[name], images, prepared.data.test_labels)
        for name, key in keys.items()
        if name in networks
    }


def sample(
    settings: SemiSupervised, networks: Mapping[str, nn.Module], count: int, *, seed: int
) -> Float[Tensor, "count channels side side"]:
    """Draw pictures in [-1, 1] with the generator.

    Raises:
        InputError: there is none among these networks.
    """
    if "generator" not in networks:
        raise InputError(f"nothing here can draw: it holds {', '.join(networks)}, and no generator")
    return drawing(networks["generator"], fixed_latents(count, settings.latent_dim, seed))()


def _labelled_batches(
    settings: SemiSupervised, data: ImageData, labelled: Bool[Tensor, " train"], seed: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    device = runtime.device()
    pixels, labels = data.train_images[labelled].to(device), data.train_labels[labelled].to(device)
    order = ShuffledIndices(len(labels), seed=2 * seed)

    def draw(number: int) -> tuple[Tensor, Tensor]:
        chosen = shared.own_part(order.batch(number, settings.labelled_batch))
        return shared.pictures(pixels[chosen], settings.augmentation), labels[chosen]

    return draw


def _unlabelled_batches(
    settings: SemiSupervised, data: ImageData, labelled: Bool[Tensor, " train"], seed: int
) -> Callable[[int], Tensor]:
    seen = data.train_images[labelled] if settings.ablation == "no_unlabelled" else data.train_images
    pixels = seen.to(runtime.device())
    order = ShuffledIndices(len(pixels), seed=2 * seed + 1)

    def draw(number: int) -> Tensor:
        chosen = shared.own_part(order.batch(number, settings.unlabelled_batch))
        return shared.pictures(pixels[chosen], settings.augmentation if settings.augment_unlabelled else None)

    return draw


def _step(settings: SemiSupervised, data: ImageData) -> Callable[..., dict[str, Tensor]]:
    """Return the training step, changed as the ablation says."""
    if settings.ablation == "no_feature_matching":
        return partial(semi_supervised_step, matching=None)
    if settings.ablation not in ("real_fakes", "noise_fakes"):
        return semi_supervised_step
    augmentation = settings.augmentation if settings.augment_unlabelled else None

    def with_given_fakes(
        players: Players, labelled: Tensor, labels: Tensor, unlabelled: Tensor, latent: Tensor, **how: Any
    ) -> dict[str, Tensor]:
        if settings.ablation == "real_fakes":
            chosen = torch.randint(len(data.train_images), (len(latent),))
            fake = shared.pictures(data.train_images[chosen].to(latent.device), augmentation)
        else:
            fake = torch.rand_like(unlabelled) * 2 - 1
        player, optimizer = players.discriminator, players.discriminator_optimizer
        losses, _ = semi_supervised_discriminator_step(player, optimizer, labelled, labels, unlabelled, fake, **how)
        return losses

    return with_given_fakes


def _training(
    name: str,
    settings: SemiSupervised,
    data: ImageData,
    average: RunningAverage,
    step: Callable[[int], dict[str, Tensor]],
    optimizers: list[Optimizer],
) -> Training:
    test_images = to_unit_range(data.test_images.to(runtime.device()))
    test_labels = data.test_labels.to(runtime.device())
    steps_per_epoch = -(-len(data.train_images) // settings.unlabelled_batch)
    return Training(
        name=name,
        step=step,
        evaluate=lambda: {settings.metric: accuracy(average.network, test_images, test_labels)},
        steps=settings.epochs * steps_per_epoch,
        report_steps=steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        optimizers=optimizers,
        learning_rate=hold_then_fall(settings.hold),
        average=average,
        shown={settings.metric: ".1%"},
        draw_steps=settings.sample_steps,
    )


def _fit(
    training: Training,
    settings: SemiSupervised,
    accelerator: Accelerator,
    folder: RunFolder | None,
    show: Callable[[int, Tensor], None] | None = None,
) -> Trained:
    fitted = shared.fit_in(folder, training, accelerator, settings.checkpoint_steps, show=show)
    return Trained(training.average.network.eval(), fitted)
