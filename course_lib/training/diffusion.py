"""Draw with a network that knows noise: begin with nothing else, and remove it."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.errors import InputError
from course_lib.losses.diffusion import NoiseSchedule

Denoiser = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def ddpm_sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    start: Float[Tensor, "count channels side side"],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "count channels side side"]:
    """Turn noise into images in [-1, 1], step by step through the whole schedule,
    with fresh noise after each step but the last (ancestral sampling).

    Args:
        denoiser: called with noisy images and the number of the step of each, it
            returns the noise that it sees. Give a network in evaluation mode.
        start: standard normal noise.
        generator: of the fresh noise, on the device of `start`.

    Source: Ho et al. (2020), Denoising Diffusion Probabilistic Models, algorithm 2
    with the smaller of the two variances of section 3.2. As in the authors' code,
    the mean is written with the image that the noise implies (their equation 7),
    and the image is clipped to [-1, 1].
    """
    images, alpha_bars = start, schedule.alpha_bars.tolist()
    for step in reversed(range(schedule.steps)):
        clean = _clean(denoiser, schedule, images, step)
        now, before = alpha_bars[step], alpha_bars[step - 1] if step else 1.0
        kept = now / before  # alpha, of this step alone
        of_clean = before**0.5 * (1 - kept) / (1 - now)
        of_images = kept**0.5 * (1 - before) / (1 - now)
        images = of_clean * clean + of_images * images
        if step:
            spread = ((1 - before) / (1 - now) * (1 - kept)) ** 0.5
            fresh = torch.randn(images.shape, generator=generator, device=images.device)
            images = images + spread * fresh
    return images


@torch.no_grad()
def ddim_sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    start: Float[Tensor, "count channels side side"],
    *,
    evaluations: int = 50,
) -> Float[Tensor, "count channels side side"]:
    """Turn noise into images in [-1, 1] with few passes through the network.

    No fresh noise is added: the same start gives the same images.

    Args:
        denoiser, start: as for `ddpm_sample`.
        evaluations: how many steps of the schedule are visited, evenly spread.

    Raises:
        InputError: there are more than the schedule has, or fewer than 1.

    Source: Song et al. (2021), Denoising Diffusion Implicit Models, equation 12 with
    sigma = 0. As for `ddpm_sample`, each image is clipped, and the noise that it
    leaves is taken for the next step.
    """
    if not 1 <= evaluations <= schedule.steps:
        raise InputError(
            f"evaluations={evaluations} cannot be spread over {schedule.steps} steps: use 1 to {schedule.steps}"
        )
    visited = torch.linspace(schedule.steps - 1, 0, evaluations).round().int()
    images, (first, *later) = start, visited.tolist()
    for step, following in zip([first, *later], [*later, None], strict=True):
        clean = _clean(denoiser, schedule, images, step)
        if following is None:
            return clean
        at, then = (torch.full((len(images),), number, device=images.device) for number in (step, following))
        of_image, of_noise = schedule.shares(at, images)
        noise = (images - of_image * clean) / of_noise
        images = schedule.add_noise(clean, noise, then)
    return images


def _clean(denoiser: Denoiser, schedule: NoiseSchedule, images: Tensor, number: int) -> Tensor:
    step: Int[Tensor, " count"] = torch.full((len(images),), number, device=images.device)
    noise = denoiser(images, step)
    return schedule.remove_noise(images, noise, step).clamp(-1, 1)
