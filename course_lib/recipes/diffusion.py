"""A denoising diffusion model: a network that knows every strength of noise draws by removing it."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.optim import Optimizer

from course_lib import runtime
from course_lib.data.images import ImageForm, load, to_unit_range
from course_lib.errors import InputError
from course_lib.losses.diffusion import cosine_schedule, simple_loss
from course_lib.models.diffusion import UNet
from course_lib.recipes import shared
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.diffusion import ddim_sample, ddpm_sample
from course_lib.training.samples import fixed_latents
from course_lib.training.steps import Backward, diffusion_step

SAMPLES = 40  # pictures that are drawn on the way, always from the same noise


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class DiffusionSettings:
    """The settings of a diffusion model. Its learning rate is constant for the part `hold` and then falls to 0."""

    data: Annotated[str, Field(description="name of the data set, or folder:PATH for pictures of your own")]
    epochs: Annotated[int, Field(ge=1, le=100_000, description="how often the pictures are seen")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    sample_steps: Annotated[int, Field(ge=1, description="updates between two pictures of what the network draws")]
    precision: Annotated[runtime.Precision, Field(description="auto: bfloat16 where the hardware has it, else float32")]
    threads: Annotated[int | None, Field(ge=1, le=1024, description="CPU threads; not given: as many as there are")]
    noise_steps: Annotated[int, Field(ge=2, le=100_000, description="steps from a picture to nothing but noise")] = 1000
    evaluations: Annotated[
        int | None, Field(ge=1, description="DDIM draws with so many passes; not given: DDPM, with one for each step")
    ] = 25
    width: Annotated[int, Field(ge=1, le=1024, description="maps at the full side")] = 16
    validation: Annotated[
        int, Field(ge=0, description="measure on so many training pictures set aside, not on the test pictures")
    ] = 0
    batch: Annotated[int, Field(ge=2, le=100_000, description="pictures in an update")] = 128
    learning_rate: Annotated[float, Field(ge=0, le=1, description="of Adam")] = 2e-3
    beta1: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean gradient")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient")] = 0.99
    hold: Annotated[float, Field(ge=0, le=1, description="part of the training with the full rate")] = 0.3
    average: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights that is kept")] = (
        0.99
    )


Settings = DiffusionSettings


def _denoiser(settings: DiffusionSettings, form: ImageForm) -> UNet:
    return UNet(channels=form.channels, side_px=form.side_px, width=settings.width)


NETWORKS: Mapping[str, Callable[[DiffusionSettings, ImageForm], nn.Module]] = {"denoiser": _denoiser}


def prepare(settings: DiffusionSettings, *, seed: int) -> shared.Judged:
    """Load the pictures.

    Raises:
        InputError: they cannot be had, or the settings do not fit them or each other.
    """
    shared.check_batch("batch", settings.batch)
    if settings.evaluations is not None and settings.evaluations > settings.noise_steps:
        raise InputError(
            f"evaluations={settings.evaluations} are more than noise_steps={settings.noise_steps}: use at most as many"
        )
    data = load(settings.data, validation=settings.validation)
    _denoiser(settings, data.form)  # it refuses a form that it cannot have
    return shared.judged(data)


def train(
    settings: DiffusionSettings,
    prepared: shared.Judged,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train on every training picture, at a random strength of noise; save what the network draws.

    On the way only the loss is measured: to draw as many pictures as there are test pictures takes a while.

    `show` gets the pictures in place of the folder, and the number of updates made.
    """
    schedule = cosine_schedule(settings.noise_steps)

    def step(network: nn.Module, optimizer: Optimizer, images: Tensor, backward: Backward) -> dict[str, Tensor]:
        noise = torch.randn_like(images)
        number = torch.randint(settings.noise_steps, (len(images),), device=images.device)
        return diffusion_step(network, optimizer, images, noise, number, schedule, backward=backward)

    outcome = shared.train_network(
        "diffusion",
        settings,
        prepared.data,
        _denoiser,
        step,
        seed=seed,
        network_name="denoiser",
        evaluate=lambda network: _loss(settings, prepared, network),
        draw=lambda network: sample(settings, {"denoiser": network}, SAMPLES, seed=seed),
        shown={f"{shared.measured_on(settings)}_noise_loss": ".4f"},
        folder=folder,
        show=show,
    )
    return outcome._replace(metrics=measure(settings, prepared, outcome.networks))


def measure(
    settings: DiffusionSettings, prepared: shared.Judged, networks: Mapping[str, nn.Module]
) -> dict[str, float]:
    """Return the loss on the test pictures, with noise that is always the same, and what the judge finds in drawn ones.

    For the latter see `shared.Judged.scores`.
    """
    count = len(prepared.data.test_images)
    drawn = sample(settings, networks, count, seed=0) if prepared.judge else None
    return _loss(settings, prepared, networks["denoiser"]) | prepared.scores(drawn)


def sample(settings: DiffusionSettings, networks: Mapping[str, nn.Module], count: int, *, seed: int) -> Tensor:
    """Draw pictures in [-1, 1].

    Raises:
        InputError: there is no denoiser among these networks.
    """
    if "denoiser" not in networks:
        raise InputError(f"nothing here can draw: it holds {', '.join(networks)}, and no denoiser")
    network, schedule = networks["denoiser"], cosine_schedule(settings.noise_steps)
    device, shape = next(network.parameters()).device, (network.channels, network.side_px, network.side_px)
    start = fixed_latents(count, shape[0] * shape[1] * shape[2], seed).view(count, *shape)
    generator = torch.Generator(device).manual_seed(seed)
    drawn = []
    for some in start.to(device).split(shared.AT_ONCE):
        if settings.evaluations is None:
            drawn.append(ddpm_sample(network, schedule, some, generator=generator))
        else:
            drawn.append(ddim_sample(network, schedule, some, evaluations=settings.evaluations))
    return torch.cat(drawn).cpu()


@torch.no_grad()
def _loss(settings: DiffusionSettings, prepared: shared.Judged, network: nn.Module) -> dict[str, float]:
    schedule, device = cosine_schedule(settings.noise_steps), next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = to_unit_range(prepared.data.test_images)
    noise = torch.randn(images.shape, generator=generator)
    number = torch.randint(settings.noise_steps, (len(images),), generator=generator)
    noisy = schedule.add_noise(images, noise, number)
    parts = zip(noisy.split(shared.AT_ONCE), number.split(shared.AT_ONCE), strict=True)
    seen = torch.cat([network(some.to(device), steps.to(device)).cpu() for some, steps in parts])
    return {f"{shared.measured_on(settings)}_noise_loss": simple_loss(seen, noise).item()}
