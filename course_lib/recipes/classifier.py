"""A small classifier trained with every label: what it looks for in a picture is what generators are judged by."""

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from course_lib import plotting, runtime
from course_lib.data.augment import RandomAffine
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageData, ImageForm, load, to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.accuracy import accuracy
from course_lib.models.classifier import Classifier
from course_lib.recipes import shared
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.fit import Training, hold_then_fall
from course_lib.training.steps import supervised_step


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class JudgeClassifier:
    """The settings of a classifier. Its learning rate is constant for the part `hold` and then falls to 0.

    It computes in float32: a judge shall say the same everywhere.
    """

    data: Annotated[str, Field(description="name of the data set")]
    epochs: Annotated[int, Field(ge=1, le=10_000, description="how often the training pictures are seen")]
    augmentation: Annotated[RandomAffine | None, Field(description="leave the pictures as they are")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    batch: Annotated[int, Field(ge=1, le=100_000, description="pictures in an update")] = 100
    learning_rate: Annotated[float, Field(ge=0, le=1, description="of Adam")] = 3e-3
    beta1: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean gradient")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient")] = 0.99
    hold: Annotated[float, Field(ge=0, le=1, description="part of the training with the full rate")] = 0.3
    average: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights that is kept")] = (
        0.99
    )
    noise_std: Annotated[float, Field(ge=0, le=10, description="noise added to what the classifier sees")] = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1, description="share of the classifier's features that are dropped")] = (
        0.1
    )
    width: Annotated[int, Field(ge=1, le=1000, description="channels of the first convolution")] = 12
    features: Annotated[int, Field(ge=1, le=10_000, description="features that the last layer decides by")] = 64
    threads: Annotated[int | None, Field(ge=1, le=1024, description="CPU threads; not given: as many as there are")] = 1


Settings = JudgeClassifier


def _classifier(settings: JudgeClassifier, form: ImageForm) -> Classifier:
    return Classifier(
        **form._asdict(),
        noise_std=settings.noise_std,
        dropout=settings.dropout,
        width=settings.width,
        features=settings.features,
    )


NETWORKS: Mapping[str, Callable[[JudgeClassifier, ImageForm], nn.Module]] = {"classifier": _classifier}


class Prepared(NamedTuple):
    """The pictures."""

    data: ImageData


def prepare(settings: JudgeClassifier, *, seed: int) -> Prepared:
    """Load the pictures.

    Raises:
        InputError: they cannot be had, or the settings do not fit them.
    """
    shared.check_batch("batch", settings.batch)
    data = load(settings.data)
    _classifier(settings, data.form)  # it refuses a form that it cannot have
    return Prepared(data)


def train(
    settings: JudgeClassifier, prepared: Prepared, *, seed: int, folder: RunFolder | None = None
) -> shared.Outcome:
    """Train on every training picture, and save a curve."""
    accelerator = runtime.start(seed, "float32", settings.threads)
    data, device = prepared.data, runtime.device()
    network = _classifier(settings, data.form)
    average = shared.start_average(network, data, decay=settings.average)
    classifier, optimizer = accelerator.prepare(network, shared.adam(network, settings))
    pixels, labels = data.train_images.to(device), data.train_labels.to(device)
    order = ShuffledIndices(len(labels), seed=seed)

    def update(number: int) -> dict[str, Tensor]:
        chosen = shared.own_part(order.batch(number, settings.batch))
        images = shared.pictures(pixels[chosen], settings.augmentation)
        return supervised_step(classifier, optimizer, images, labels[chosen], backward=accelerator.backward)

    test_images, test_labels = to_unit_range(data.test_images.to(device)), data.test_labels.to(device)
    steps_per_epoch = -(-len(labels) // settings.batch)
    training = Training(
        name="classifier",
        step=update,
        evaluate=lambda: {"test_accuracy": accuracy(average.network, test_images, test_labels)},
        steps=settings.epochs * steps_per_epoch,
        report_steps=steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        optimizers=[optimizer],
        learning_rate=hold_then_fall(settings.hold),
        average=average,
        shown={"test_accuracy": ".1%"},
    )
    fitted = shared.fit_in(folder, training, accelerator, settings.checkpoint_steps)
    curve = [line["test_accuracy"] for line in fitted.history]
    if folder is not None and runtime.is_main_process():
        folder.save_picture("curve", plotting.accuracy_curves({"classifier": curve}))
    return shared.Outcome({"classifier": average.network.eval()}, {"test_accuracy": curve[-1]}, {training.name: fitted})


def measure(settings: JudgeClassifier, prepared: Prepared, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the accuracy of the classifier on the test pictures."""
    images, labels = to_unit_range(prepared.data.test_images), prepared.data.test_labels
    return {"test_accuracy": accuracy(networks["classifier"], images, labels)}


def sample(settings: JudgeClassifier, networks: Mapping[str, nn.Module], count: int, *, seed: int) -> Tensor:
    """Refuse.

    Raises:
        InputError: a classifier draws nothing.
    """
    raise InputError(f"nothing here can draw: it holds {', '.join(networks)}, and no generator")
