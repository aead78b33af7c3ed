"""What recipes of several families use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from course_lib import runtime
from course_lib.data.augment import RandomAffine
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageData, ImageForm, to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.frechet import frechet_distance
from course_lib.evaluation.judge import Judge, judge
from course_lib.models.blocks import initialise_from_data
from course_lib.recipes.run_folder import RunFolder
from course_lib.training.average import RunningAverage
from course_lib.training.fit import Fitted, Training, fit, hold_then_fall
from course_lib.training.steps import Backward

AT_ONCE = 500  # pictures that are drawn or judged together: 10,000 would take gigabytes
REPORTS = 5


class Outcome(NamedTuple):
    """What training a recipe gives: networks by the names of their files, metrics, and each training by its name."""

    networks: Mapping[str, nn.Module]
    metrics: dict[str, float]
    fitted: Mapping[str, Fitted]


@runtime_checkable
class Data(Protocol):
    """What a record says of the data of a run: the form of its pictures, and a hash that names them."""

    @property
    def form(self) -> ImageForm: ...

    def sha256(self) -> str: ...


@runtime_checkable
class Prepared(Protocol):
    """The data of a run, and whatever else its family prepares."""

    data: Data


@dataclass(frozen=True)
class Judged:
    """The pictures, and who judges those that a network draws: None where nobody can."""

    data: ImageData
    judge: Judge | None

    @property
    def judged_by(self) -> dict[str, str]:
        """The SHA-256 of the judge's weights, by the name under which they are shipped."""
        return {f"classifier_{self.judge.data_name}": self.judge.sha256} if self.judge else {}

    @cached_property
    def _real_features(self) -> Tensor:
        return self.judge.features(to_unit_range(self.data.test_images))

    def scores(self, drawn: Float[Tensor, "n channels side side"] | None) -> dict[str, float]:
        """Return what the judge finds in drawn pictures, of which there should be as many as test pictures.

        classifier_frechet: the distance of `frechet_distance`, on the judge's features.
        class_entropy_nats: of the shares of the classes among them; log(classes) where all come equally often.

        None where nothing was drawn, or where nobody judges.
        """
        if self.judge is None or drawn is None:
            return {}
        shares = self.judge.class_counts(drawn) / len(drawn)
        return {
            "classifier_frechet": frechet_distance(self._real_features, self.judge.features(drawn)),
            "class_entropy_nats": torch.special.entr(shares).sum().item(),
        }


def judged(data: ImageData) -> Judged:
    """Return pictures with who knows such, if anybody: a judge of the same name, and of the same form."""
    try:
        found = judge(data.name)
    except InputError:
        return Judged(data, None)
    return Judged(data, found if found.form == data.form else None)


def judged_by(prepared: Prepared) -> dict[str, str]:
    """Return the SHA-256 of each network that a run is measured by, by its name; few families have any."""
    return getattr(prepared, "judged_by", {})


@runtime_checkable
class Family(Protocol):
    """What a module must have to be the family of a recipe.

    Settings:  the class of its settings: frozen, checked, each field an option (see `recipes.settings`).
    NETWORKS:  how each network is made from settings and the form of the pictures.
    prepare:   load what a run needs. It raises InputError for all that can be known to be wrong before training.
    train:     train, and save pictures in the folder; the weights and the record are saved for it.
    measure:   metrics of trained networks, by the names that they have in the record.
    sample:    pictures drawn by a network among these, in [-1, 1]; InputError where none can draw.
    """

    Settings: type
    NETWORKS: Mapping[str, Any]

    def prepare(self, settings: Any, *, seed: int) -> Prepared: ...

    def train(self, settings: Any, prepared: Any, *, seed: int, folder: RunFolder | None = None) -> Outcome: ...

    def measure(self, settings: Any, prepared: Any, networks: Mapping[str, nn.Module]) -> dict[str, float]: ...

    def sample(self, settings: Any, networks: Mapping[str, nn.Module], count: int, *, seed: int) -> Tensor: ...


@runtime_checkable
class AdamSettings(Protocol):
    """Settings of Adam."""

    learning_rate: float
    beta1: float
    beta2: float


@runtime_checkable
class OneNetworkSettings(AdamSettings, Protocol):
    """Settings of a training of one network without labels."""

    epochs: int
    batch: int
    hold: float
    average: float
    checkpoint_steps: int
    sample_steps: int
    precision: runtime.Precision
    threads: int | None
    validation: int


def adam(network: nn.Module, settings: AdamSettings) -> Adam:
    """Return the optimizer of a network."""
    return Adam(network.parameters(), lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True)


def start_average(network: nn.Module, data: ImageData, *, decay: float) -> RunningAverage:
    """Set the first weights of a weight-normalised network, and begin its average."""
    some = torch.randperm(len(data.train_images))[:500]
    initialise_from_data(network, to_unit_range(data.train_images[some]))
    network.to(memory_format=torch.channels_last)  # convolutions on a CPU are about 1.5 times as fast
    # Copied before Accelerate makes the network's forward pass one of mixed precision: scores are taken in float32.
    return RunningAverage(network, decay, runtime.device())


def fit_in(
    folder: RunFolder | None,
    training: Training,
    accelerator: Accelerator,
    checkpoint_steps: int,
    *,
    show: Callable[[int, Tensor], None] | None = None,
) -> Fitted:
    """Train with checkpoints in the folder of a run, from the newest one if the run is resumed; without one, save none.

    `show` gets what the training draws, in place of the folder.
    """
    return fit(
        training,
        accelerator,
        checkpoints=folder.checkpoints(training.name) if folder else None,
        checkpoint_steps=checkpoint_steps,
        resume=folder.resume if folder else False,
        show=show or (folder.save_samples if folder else None),
    )


def train_network(
    name: str,
    settings: OneNetworkSettings,
    data: ImageData,
    build: Callable[[Any, ImageForm], nn.Module],
    step: Callable[[nn.Module, Optimizer, Tensor, Backward], dict[str, Tensor]],
    *,
    seed: int,
    evaluate: Callable[[nn.Module], dict[str, float]],
    draw: Callable[[nn.Module], Tensor],
    shown: Mapping[str, str],
    network_name: str | None = None,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> Outcome:
    """Train one network on every training picture, without the labels.

    The network that is kept, drawn with and measured is the running average.

    Args:
        name: of the training.
        step: is given the network, its optimizer, a batch of pictures and how to go backwards; it makes an update and
            returns the losses.
        evaluate, draw: are given the averaged network, in evaluation mode.
        network_name: of its file; None is the name of the training.
        show: as for `fit_in`.
    """
    accelerator = runtime.start(seed, settings.precision, settings.threads)
    network = build(settings, data.form).to(memory_format=torch.channels_last)
    # Copied before Accelerate makes the network's forward pass one of mixed precision.
    average = RunningAverage(network, settings.average, runtime.device())
    kept = average.network.eval()
    trained, optimizer = accelerator.prepare(network, adam(network, settings))
    pixels, order = data.train_images.to(runtime.device()), ShuffledIndices(len(data.train_images), seed=seed)

    def update(number: int) -> dict[str, Tensor]:
        images = to_unit_range(pixels[own_part(order.batch(number, settings.batch))])
        return step(trained, optimizer, images, accelerator.backward)

    steps_per_epoch = max(1, len(pixels) // settings.batch)
    training = Training(
        name=name,
        step=update,
        evaluate=lambda: evaluate(kept),
        steps=settings.epochs * steps_per_epoch,
        report_steps=steps_per_epoch * max(1, settings.epochs // REPORTS),
        steps_per_epoch=steps_per_epoch,
        optimizers=[optimizer],
        learning_rate=hold_then_fall(settings.hold),
        average=average,
        shown=shown,
        draw=lambda: draw(kept),
        draw_steps=settings.sample_steps,
    )
    fitted = fit_in(folder, training, accelerator, settings.checkpoint_steps, show=show)
    return Outcome({network_name or name: kept}, evaluate(kept), {name: fitted})


def measured_on(settings: OneNetworkSettings) -> str:
    """Return which pictures metrics are of, as the first word of their names."""
    return "validation" if settings.validation else "test"


def check_batch(name: str, size: int) -> None:
    """Refuse a batch that the processes of a run cannot share equally: its pictures would not count alike.

    Raises:
        InputError: it cannot be divided by the number of processes.
    """
    processes = runtime.processes()
    if size % processes:
        nearest = max(size // processes, 1) * processes
        raise InputError(f"{name}={size} cannot be shared by {processes} processes: use a multiple, such as {nearest}")


def own_part(indices: Int[Tensor, " batch"]) -> Int[Tensor, " part"]:
    """Return this process's part of a batch, on its device."""
    return indices[runtime.process_index() :: runtime.processes()].to(runtime.device())


def pictures(
    pixels: UInt8[Tensor, "batch channels side side"], augmentation: RandomAffine | None
) -> Float[Tensor, "batch channels side side"]:
    """Scale pixels to [-1, 1], and change the pictures at random where there is an augmentation."""
    images = to_unit_range(pixels)
    return augmentation(images) if augmentation else images
