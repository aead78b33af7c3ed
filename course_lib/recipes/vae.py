"""A variational autoencoder on pictures made black and white at random."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.optim import Optimizer

from course_lib import runtime
from course_lib.data.augment import binarised
from course_lib.data.images import ImageForm, load, to_unit_range
from course_lib.errors import InputError
from course_lib.losses.variational import negative_elbo
from course_lib.models.vae import VAE
from course_lib.recipes import shared
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.samples import drawing, fixed_latents
from course_lib.training.steps import Backward, vae_step

SAMPLES = 40  # pictures that are drawn on the way, always from the same latents


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class VAESettings:
    """The settings of a VAE. Its learning rate is constant for the part `hold` and then falls to 0."""

    data: Annotated[str, Field(description="name of the data set, or folder:PATH for pictures of your own")]
    epochs: Annotated[int, Field(ge=1, le=100_000, description="how often the pictures are seen")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    sample_steps: Annotated[int, Field(ge=1, description="updates between two pictures of what the decoder draws")]
    precision: Annotated[runtime.Precision, Field(description="auto: bfloat16 where the hardware has it, else float32")]
    threads: Annotated[int | None, Field(ge=1, le=1024, description="CPU threads; not given: as many as there are")]
    beta: Annotated[float, Field(ge=0, le=1000, description="weight of the divergence from N(0, I)")] = 1.0
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 20
    width: Annotated[int, Field(ge=1, le=1024, description="channels of the first convolution")] = 10
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


Settings = VAESettings


def _vae(settings: VAESettings, form: ImageForm) -> VAE:
    return VAE(channels=form.channels, side_px=form.side_px, latent_dim=settings.latent_dim, width=settings.width)


NETWORKS: Mapping[str, Callable[[VAESettings, ImageForm], nn.Module]] = {"vae": _vae}


def prepare(settings: VAESettings, *, seed: int) -> shared.Judged:
    """Load the pictures.

    Raises:
        InputError: they cannot be had, or the settings do not fit them.
    """
    shared.check_batch("batch", settings.batch)
    data = load(settings.data, validation=settings.validation)
    _vae(settings, data.form)  # it refuses a form that it cannot have
    return shared.judged(data)


def train(
    settings: VAESettings,
    prepared: shared.Judged,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train on every training picture, made black and white anew each time; save what the decoder draws.

    `show` gets these pictures in place of the folder, and the number of updates made.
    """

    def step(network: nn.Module, optimizer: Optimizer, images: Tensor, backward: Backward) -> dict[str, Tensor]:
        noise = torch.randn(len(images), settings.latent_dim, device=images.device)
        return vae_step(network, optimizer, binarised(images), noise, beta=settings.beta, backward=backward)

    return shared.train_network(
        "vae",
        settings,
        prepared.data,
        _vae,
        step,
        seed=seed,
        evaluate=lambda network: measure(settings, prepared, {"vae": network}),
        draw=lambda network: sample(settings, {"vae": network}, SAMPLES, seed=seed),
        shown={f"{shared.measured_on(settings)}_negative_elbo_nats": ".1f"},
        folder=folder,
        show=show,
    )


@torch.no_grad()
def measure(settings: VAESettings, prepared: shared.Judged, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the negative evidence lower bound of the test pictures, and what the judge finds in drawn ones.

    test_negative_elbo_nats: a mean over all of them, with beta = 1, made black and white and encoded with random
    numbers that are always the same; test_reconstruction_nats and test_kl_nats: its parts. For the rest see
    `shared.Judged.scores`.
    """
    network, name = networks["vae"], shared.measured_on(settings)
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = binarised(to_unit_range(prepared.data.test_images), generator=generator)
    noise = torch.randn(len(images), settings.latent_dim, generator=generator)
    parts = []
    for some, of_latent in zip(images.split(shared.AT_ONCE), noise.split(shared.AT_ONCE), strict=True):
        logits, mean, log_variance = network(some.to(device), of_latent.to(device))
        parts.append(torch.stack(negative_elbo(logits, some.to(device), mean, log_variance)))
    means = torch.cat(parts, dim=1).double().mean(dim=1).tolist()
    keys = (f"{name}_{key}_nats" for key in ("negative_elbo", "reconstruction", "kl"))
    drawn = sample(settings, networks, len(images), seed=0) if prepared.judge else None
    return dict(zip(keys, means, strict=True)) | prepared.scores(drawn)


def sample(settings: VAESettings, networks: Mapping[str, nn.Module], count: int, *, seed: int) -> Tensor:
    """Draw pictures in [-1, 1] with the decoder: the probability that a pixel is white is its brightness.

    Raises:
        InputError: there is no VAE among these networks.
    """
    if "vae" not in networks:
        raise InputError(f"nothing here can draw: it holds {', '.join(networks)}, and no vae")
    latents = fixed_latents(count, settings.latent_dim, seed)
    decoder = networks["vae"].decoder
    logits = [drawing(decoder, some)() for some in latents.split(shared.AT_ONCE)]
    return 2 * torch.cat(logits).sigmoid() - 1
