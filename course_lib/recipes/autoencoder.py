"""Autoencoders: networks that repeat pictures through a bottleneck, or clean them of noise."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.optim import Optimizer

from course_lib import runtime
from course_lib.data.augment import with_noise
from course_lib.data.images import ImageData, ImageForm, load, to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.anomaly import auc
from course_lib.evaluation.reconstruction import mean_squared_errors, psnr
from course_lib.models.autoencoder import Autoencoder
from course_lib.recipes import shared
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.steps import Backward, autoencoder_step

SHOWN = 10  # test pictures that are drawn on the way, always the same ones


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class AutoencoderSettings:
    """The settings of an autoencoder. Its learning rate is constant for the part `hold` and then falls to 0.

    With noise it sees noisy pictures, and clean ones are what it shall answer.
    """

    data: Annotated[str, Field(description="name of the data set, or folder:PATH for pictures of your own")]
    epochs: Annotated[int, Field(ge=1, le=100_000, description="how often the pictures are seen")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    sample_steps: Annotated[int, Field(ge=1, description="updates between two pictures of what the network makes")]
    precision: Annotated[runtime.Precision, Field(description="auto: bfloat16 where the hardware has it, else float32")]
    threads: Annotated[int | None, Field(ge=1, le=1024, description="CPU threads; not given: as many as there are")]
    noise_factor: Annotated[
        float, Field(ge=0, le=10, description="spread of the noise that it removes, of pixels in [0, 1]; 0 is none")
    ] = 0.0
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 32
    width: Annotated[int, Field(ge=1, le=1024, description="channels of the first convolution")] = 16
    held_out: Annotated[
        int | None, Field(ge=0, description="a class that it never sees, and shall find by its large errors")
    ] = None
    validation: Annotated[
        int, Field(ge=0, description="measure on so many training pictures set aside, not on the test pictures")
    ] = 0
    batch: Annotated[int, Field(ge=2, le=100_000, description="pictures in an update")] = 128
    learning_rate: Annotated[float, Field(ge=0, le=1, description="of Adam")] = 4e-3
    beta1: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean gradient")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient")] = 0.99
    hold: Annotated[float, Field(ge=0, le=1, description="part of the training with the full rate")] = 0.3
    average: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights that is kept")] = (
        0.99
    )


Settings = AutoencoderSettings


def _autoencoder(settings: AutoencoderSettings, form: ImageForm) -> Autoencoder:
    return Autoencoder(
        channels=form.channels, side_px=form.side_px, latent_dim=settings.latent_dim, width=settings.width
    )


NETWORKS: Mapping[str, Callable[[AutoencoderSettings, ImageForm], nn.Module]] = {"autoencoder": _autoencoder}


class Prepared(NamedTuple):
    """The pictures; of a class that is held out there are none to train on."""

    data: ImageData


def prepare(settings: AutoencoderSettings, *, seed: int) -> Prepared:
    """Load the pictures.

    Raises:
        InputError: they cannot be had, or the settings do not fit them.
    """
    shared.check_batch("batch", settings.batch)
    data = load(settings.data, validation=settings.validation)
    _autoencoder(settings, data.form)  # it refuses a form that it cannot have
    return Prepared(data if settings.held_out is None else _without(data, settings.held_out))


def train(
    settings: AutoencoderSettings,
    prepared: Prepared,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train on every training picture, and save what becomes of some test pictures, each below its input.

    `show` gets these pictures in place of the folder, and the number of updates made.
    """

    def step(network: nn.Module, optimizer: Optimizer, images: Tensor, backward: Backward) -> dict[str, Tensor]:
        inputs = with_noise(images, settings.noise_factor) if settings.noise_factor else images
        return autoencoder_step(network, optimizer, inputs, images, backward=backward)

    def draw(network: nn.Module) -> Tensor:
        images = to_unit_range(prepared.data.test_images[:SHOWN])
        inputs = _inputs(settings, images)
        targets = [images] if settings.noise_factor else []
        return torch.cat([inputs, reconstruct(network, inputs), *targets])

    return shared.train_network(
        "autoencoder",
        settings,
        prepared.data,
        _autoencoder,
        step,
        seed=seed,
        evaluate=lambda network: measure(settings, prepared, {"autoencoder": network}),
        draw=draw,
        shown={f"{shared.measured_on(settings)}_mse": ".4f"},
        folder=folder,
        show=show,
    )


def measure(settings: AutoencoderSettings, prepared: Prepared, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return what is lost of the test pictures, and how well a class that was held out is found.

    test_mse: mean squared error of pixels in [0, 1]; test_psnr_db: the same as a peak signal-to-noise ratio. Both are
    of the classes that the network was trained on. anomaly_auc, _low, _high: area under the ROC curve where the error
    of a picture says how odd it is, and its 95 % interval. The noise is always the same.
    """
    data, name = prepared.data, shared.measured_on(settings)
    images = to_unit_range(data.test_images)
    made = reconstruct(networks["autoencoder"], _inputs(settings, images))
    odd = data.test_labels == (-1 if settings.held_out is None else settings.held_out)
    errors = mean_squared_errors(images, made)
    found = {f"{name}_mse": errors[~odd].mean().item(), f"{name}_psnr_db": psnr(images[~odd], made[~odd])}
    if settings.held_out is not None:
        area = auc(errors, odd)
        found |= {"anomaly_auc": area.value, "anomaly_auc_low": area.low, "anomaly_auc_high": area.high}
    return found


def sample(settings: AutoencoderSettings, networks: Mapping[str, nn.Module], count: int, *, seed: int) -> Tensor:
    """Refuse.

    Raises:
        InputError: nobody knows which latent vectors an autoencoder uses.
    """
    raise InputError(
        f"nothing here can draw: it holds {', '.join(networks)}, which repeats the pictures that it is given, and no "
        "generator: use a run of vae"
    )


@torch.no_grad()
def reconstruct(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a network in evaluation mode makes of many pictures, on the CPU."""
    device = next(network.parameters()).device
    return torch.cat([network(some.to(device)).cpu() for some in inputs.split(shared.AT_ONCE)])


def _inputs(settings: AutoencoderSettings, images: Tensor) -> Tensor:
    """Return pictures as the network sees them when it is measured, with the same noise each time."""
    if not settings.noise_factor:
        return images
    return with_noise(images, settings.noise_factor, generator=torch.Generator().manual_seed(0))


def _without(data: ImageData, held_out: int) -> ImageData:
    if held_out >= data.classes or data.classes < 2:
        raise InputError(
            f"held_out={held_out} leaves nothing out that could be found: {data.name} has {data.classes} classes, so "
            f"use 0 to {data.classes - 1}, of at least 2 classes"
        )
    stay = data.train_labels != held_out
    return replace(data, train_images=data.train_images[stay], train_labels=data.train_labels[stay])
