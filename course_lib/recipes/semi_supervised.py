"""The semi-supervised GAN and its baseline: the same network, with and without the pictures that have no label."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from course_lib import plotting, runtime
from course_lib.data.augment import RandomAffine
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageData, load, to_unit_range
from course_lib.data.labels import choose_labelled
from course_lib.errors import InputError
from course_lib.evaluation.accuracy import accuracy
from course_lib.models.blocks import initialise_from_data
from course_lib.models.classifier import Classifier
from course_lib.models.semi_supervised_gan import Generator
from course_lib.recipes.run_folder import RunFolder
from course_lib.training.average import RunningAverage
from course_lib.training.fit import Training, fit, hold_then_fall
from course_lib.training.steps import (
    Backward,
    Players,
    semi_supervised_discriminator_step,
    semi_supervised_step,
    supervised_step,
)

LATENT_DIM = 100
# What may be taken away from the semi-supervised GAN, to see what it was good for.
ABLATIONS = {
    "no_unlabelled": "the labelled pictures serve as the unlabelled ones, too: no other picture is seen",
    "no_feature_matching": "the generator minimises the non-saturating loss of a plain GAN",
    "real_fakes": "real pictures stand in for generated ones: a generator that is too good",
    "noise_fakes": "pictures of noise stand in for generated ones: a generator that has learnt nothing",
}


@dataclass(frozen=True)
class SemiSupervised:
    """The settings of a semi-supervised GAN and of its baseline, which share all of them.

    Args:
        data: name of the data set.
        side_px: side of the pictures; None keeps that of the data.
        labels: how many training images keep their label, the same number for every class.
        epochs: how often the unlabelled pictures are seen; the baseline makes as many updates.
        labelled_batch, unlabelled_batch: images per update; as many are generated as are unlabelled.
        learning_rate: of Adam, for both players; constant for `hold` of the training, then falling to 0.
        beta1, beta2: Adam's decay of the mean gradient and of the mean squared one. Once the few labels are learnt
            both are nearly 0, and one rare large gradient makes a large step. With 100 labels of MNIST and 0.999 such a
            step was seen to undo a training; with 0.99 the mean square follows sooner, and the step stays small.
        noise_std, dropout: regularisation of the network (see `models.classifier.Classifier`).
        augmentation: how labelled pictures are changed; None leaves them as they are.
        augment_unlabelled: whether the unlabelled ones are changed, too.
        average: decay of the running average of weights that is evaluated.
        checkpoint_steps: updates between two checkpoints.
        validation: how many training pictures are set aside and measured on, instead of the test pictures: for
            choosing settings.
        ablation: what is taken away from the GAN, one of `ABLATIONS`; None leaves it whole.
    """

    data: str
    labels: int
    epochs: int
    learning_rate: float
    noise_std: float
    dropout: float
    augmentation: RandomAffine | None
    augment_unlabelled: bool
    average: float
    checkpoint_steps: int
    validation: int = 0
    ablation: str | None = None
    side_px: int | None = None
    labelled_batch: int = 50
    unlabelled_batch: int = 100
    beta1: float = 0.5
    beta2: float = 0.999
    hold: float = 0.3

    def __post_init__(self) -> None:
        if self.ablation is not None and self.ablation not in ABLATIONS:
            raise InputError(f"ablation {self.ablation!r} is unknown: use {', '.join(ABLATIONS)}")

    @property
    def measure(self) -> str:
        """Under which name accuracy is recorded."""
        return "validation_accuracy" if self.validation else "test_accuracy"


@dataclass(frozen=True)
class Trained:
    """A trained classifier, what happened on the way, and the generator that it played against, if any."""

    classifier: Classifier
    history: list[dict[str, float]]
    resumed_from_step: int
    earlier_seconds: float
    generator: Generator | None = None


def train_baseline(
    settings: SemiSupervised,
    data: ImageData,
    labelled: Bool[Tensor, " train"],
    *,
    scale: runtime.Scale,
    seed: int,
    folder: RunFolder | None = None,
) -> Trained:
    """Train the classifier on the labelled pictures alone."""
    accelerator = runtime.start(seed, scale=scale)
    network, average = _classifier(settings, data, accelerator)
    classifier, optimizer = accelerator.prepare(network, _adam(settings, network))
    draw_labelled = _labelled_batches(settings, data, labelled, seed, accelerator)

    def step(number: int) -> dict[str, Tensor]:
        images, labels = draw_labelled(number)
        return supervised_step(classifier, optimizer, images, labels, backward=accelerator.backward)

    return _train("baseline", settings, data, accelerator, average, [optimizer], step, folder)


def train_ssgan(
    settings: SemiSupervised,
    data: ImageData,
    labelled: Bool[Tensor, " train"],
    *,
    scale: runtime.Scale,
    seed: int,
    folder: RunFolder | None = None,
) -> Trained:
    """Train the same classifier, from the same first weights, as the discriminator of a semi-supervised GAN.

    Every training picture, labelled or not, serves as an unlabelled one.
    """
    accelerator = runtime.start(seed, scale=scale)
    network, average = _classifier(settings, data, accelerator)
    generator_network = Generator(channels=data.channels, side_px=data.side_px, latent_dim=LATENT_DIM)
    generator_network.to(memory_format=torch.channels_last)
    optimizers = [_adam(settings, generator_network), _adam(settings, network)]
    players = Players(*accelerator.prepare(generator_network, network, *optimizers))
    draw_labelled = _labelled_batches(settings, data, labelled, seed, accelerator)
    seen = data.train_images[labelled] if settings.ablation == "no_unlabelled" else data.train_images
    pixels = seen.to(accelerator.device)
    order = ShuffledIndices(len(pixels), seed=2 * seed + 1)

    def unlabelled_images(chosen: Tensor) -> Tensor:
        images = to_unit_range(pixels[chosen])
        return settings.augmentation(images) if settings.augmentation and settings.augment_unlabelled else images

    update = _update(settings.ablation, lambda count: unlabelled_images(torch.randint(len(pixels), (count,))))

    def step(number: int) -> dict[str, Tensor]:
        images, labels = draw_labelled(number)
        unlabelled = unlabelled_images(_share(order.batch(number, settings.unlabelled_batch), accelerator))
        latent = torch.randn(len(unlabelled), LATENT_DIM, device=accelerator.device)
        return update(players, images, labels, unlabelled, latent, backward=accelerator.backward)

    optimizers = [players.generator_optimizer, players.discriminator_optimizer]
    trained = _train("ssgan", settings, data, accelerator, average, optimizers, step, folder)
    generator = accelerator.unwrap_model(players.generator, keep_fp32_wrapper=False).eval()
    return replace(trained, generator=generator)


def prepare_data(settings: SemiSupervised, *, seed: int) -> tuple[ImageData, Bool[Tensor, " train"]]:
    """Load the pictures and choose whose label is kept.

    Raises:
        InputError: the data cannot be had, or the number of labels or the side of the pictures does not fit.
    """
    if settings.epochs < 1:
        raise InputError(f"epochs={settings.epochs} trains nothing: use at least 1")
    data = load(settings.data, side_px=settings.side_px, validation=settings.validation)
    Generator(channels=data.channels, side_px=data.side_px, latent_dim=LATENT_DIM)  # refuses a side it cannot draw
    return data, choose_labelled(data.train_labels, settings.labels, classes=data.classes, seed=seed)


def train_both(
    settings: SemiSupervised,
    data: ImageData,
    labelled: Bool[Tensor, " train"],
    *,
    scale: runtime.Scale,
    seed: int,
    folder: RunFolder | None = None,
) -> dict[str, Any]:
    """Train the baseline, then the semi-supervised GAN; return the fields of the record, and save weights and curve."""
    baseline = train_baseline(settings, data, labelled, scale=scale, seed=seed, folder=folder)
    ssgan = train_ssgan(settings, data, labelled, scale=scale, seed=seed, folder=folder)
    if folder is not None and runtime.is_main_process():
        folder.save_weights("baseline", baseline.classifier)
        folder.save_weights("discriminator", ssgan.classifier)
        folder.save_weights("generator", ssgan.generator)
        curves = {
            name: [epoch[settings.measure] for epoch in trained.history]
            for name, trained in {"supervised baseline": baseline, "semi-supervised GAN": ssgan}.items()
        }
        folder.save_picture("curve", plotting.accuracy_curves(curves))
    of_baseline, of_ssgan = (trained.history[-1][settings.measure] for trained in (baseline, ssgan))
    return {
        "metrics": {
            settings.measure: of_ssgan,
            f"baseline_{settings.measure}": of_baseline,
            "gain_points": 100 * (of_ssgan - of_baseline),
        },
        "history": {"baseline": baseline.history, "ssgan": ssgan.history},
        "resumed_from_step": baseline.resumed_from_step + ssgan.resumed_from_step,
        "earlier_seconds": baseline.earlier_seconds + ssgan.earlier_seconds,
    }


def build(identity: Mapping[str, Any], images: Mapping[str, int]) -> dict[str, nn.Module]:
    """Return the untrained networks of a recorded run, by the names of their files.

    Args:
        identity: that of the record.
        images: channels, side_px and classes of its pictures.
    """
    form = {"channels": images["channels"], "side_px": images["side_px"]}
    regularised = {"noise_std": identity["noise_std"], "dropout": identity["dropout"]}
    return {
        "baseline": Classifier(**form, classes=images["classes"], **regularised),
        "discriminator": Classifier(**form, classes=images["classes"], **regularised),
        "generator": Generator(**form, latent_dim=LATENT_DIM),
    }


def measure(networks: Mapping[str, nn.Module], data: ImageData) -> dict[str, float]:
    """Return the accuracy of the classifiers among these networks, by the names that it has in a record."""
    images = to_unit_range(data.test_images)
    keys = {"discriminator": "test_accuracy", "baseline": "baseline_test_accuracy"}
    return {key: accuracy(networks[name], images, data.test_labels) for name, key in keys.items() if name in networks}


def _update(ablation: str | None, draw_real: Callable[[int], Tensor]) -> Callable[..., dict[str, Tensor]]:
    """Return the training step, changed as the ablation says."""
    if ablation == "no_feature_matching":
        return partial(semi_supervised_step, feature_matching=False)
    if ablation not in ("real_fakes", "noise_fakes"):
        return semi_supervised_step

    def with_given_fakes(
        players: Players, labelled: Tensor, labels: Tensor, unlabelled: Tensor, latent: Tensor, *, backward: Backward
    ) -> dict[str, Tensor]:
        fake = draw_real(len(latent)) if ablation == "real_fakes" else torch.rand_like(unlabelled) * 2 - 1
        losses, _ = semi_supervised_discriminator_step(
            players.discriminator,
            players.discriminator_optimizer,
            labelled,
            labels,
            unlabelled,
            fake,
            backward=backward,
        )
        return losses

    return with_given_fakes


def _classifier(
    settings: SemiSupervised, data: ImageData, accelerator: Accelerator
) -> tuple[Classifier, RunningAverage]:
    network = Classifier(
        channels=data.channels,
        side_px=data.side_px,
        classes=data.classes,
        noise_std=settings.noise_std,
        dropout=settings.dropout,
    )
    some = torch.randperm(len(data.train_images))[:500]
    initialise_from_data(network, to_unit_range(data.train_images[some]))
    network.to(memory_format=torch.channels_last)  # convolutions on a CPU are about 1.5 times as fast
    # Copied before Accelerate makes the network's forward pass one of mixed precision: scores are taken in float32.
    return network, RunningAverage(network, settings.average, accelerator.device)


def _adam(settings: SemiSupervised, network: nn.Module) -> Adam:
    return Adam(network.parameters(), lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True)


def _labelled_batches(
    settings: SemiSupervised, data: ImageData, labelled: Bool[Tensor, " train"], seed: int, accelerator: Accelerator
) -> Callable[[int], tuple[Tensor, Tensor]]:
    pixels = data.train_images[labelled].to(accelerator.device)
    labels = data.train_labels[labelled].to(accelerator.device)
    order = ShuffledIndices(len(labels), seed=2 * seed)

    def draw(number: int) -> tuple[Tensor, Tensor]:
        chosen = _share(order.batch(number, settings.labelled_batch), accelerator)
        images = to_unit_range(pixels[chosen])
        return settings.augmentation(images) if settings.augmentation else images, labels[chosen]

    return draw


def _share(indices: Tensor, accelerator: Accelerator) -> Tensor:
    """Take this process's part of a batch."""
    return indices[accelerator.process_index :: accelerator.num_processes].to(accelerator.device)


def _train(
    name: str,
    settings: SemiSupervised,
    data: ImageData,
    accelerator: Accelerator,
    average: RunningAverage,
    optimizers: list[Optimizer],
    step: Callable[[int], dict[str, Tensor]],
    folder: RunFolder | None,
) -> Trained:
    test_images = to_unit_range(data.test_images.to(accelerator.device))
    test_labels = data.test_labels.to(accelerator.device)
    steps_per_epoch = -(-len(data.train_images) // settings.unlabelled_batch)
    fitted = fit(
        Training(
            name=name,
            step=step,
            evaluate=lambda: {settings.measure: accuracy(average.network, test_images, test_labels)},
            steps=settings.epochs * steps_per_epoch,
            report_steps=steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            shown={settings.measure: ".1%"},
            optimizers=optimizers,
            learning_rate=hold_then_fall(settings.hold),
            average=average,
        ),
        accelerator,
        checkpoints=folder.checkpoints(name) if folder else None,
        checkpoint_steps=settings.checkpoint_steps,
        resume=folder.resume if folder else False,
    )
    return Trained(average.network.eval(), *fitted)
