"""How a diffusion model's images drown in noise, and what its network minimises."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import mse_loss

from course_lib.errors import InputError

OFFSET = 0.008
LARGEST_BETA = 0.999


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of an image is left after each step of adding noise, from 0 on.

    Args:
        alpha_bars: the share of the image in the variance, falling from nearly 1 to
            nearly 0; the rest is noise. The paper counts its steps from 1.
    """

    alpha_bars: Float[Tensor, " steps"]

    @property
    def steps(self) -> int:
        return len(self.alpha_bars)

    def shares(
        self, step: Int[Tensor, " batch"], like: Float[Tensor, "batch *shape"]
    ) -> tuple[Tensor, Tensor]:
        """Return what an image and what the noise is multiplied with at each step,
        the roots of alpha-bar and of 1 - alpha-bar, in a shape that fits `like`.
        """
        share = self.alpha_bars.to(like.device)[step].to(like.dtype)
        share = share.view(-1, *[1] * (like.ndim - 1))  # (batch, 1, 1, 1)
        return share.sqrt(), (1 - share).sqrt()

    def add_noise(
        self,
        images: Float[Tensor, "batch *shape"],
        noise: Float[Tensor, "batch *shape"],
        step: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return each image as it is after so many steps, in one go.

        Source: Ho et al. (2020), Denoising Diffusion Probabilistic Models,
        equation 4.
        """
        of_image, of_noise = self.shares(step, images)
        return of_image * images + of_noise * noise

    def remove_noise(
        self,
        noisy: Float[Tensor, "batch *shape"],
        noise: Float[Tensor, "batch *shape"],
        step: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the image that `add_noise` was given, from what it returned."""
        of_image, of_noise = self.shares(step, noisy)
        return (noisy - of_noise * noise) / of_image


def cosine_schedule(steps: int) -> NoiseSchedule:
    """Return a schedule in which alpha-bar falls like a squared cosine.

    Raises:
        InputError: there are fewer than 2 steps.

    Source: Nichol and Dhariwal (2021), Improved Denoising Diffusion Probabilistic
    Models, equation 17; each step keeps at least a thousandth of the variance, as
    there.
    """
    if steps < 2:
        raise InputError(f"steps={steps} make no schedule: use at least 2")
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    wave = torch.cos((time + OFFSET) / (1 + OFFSET) * math.pi / 2).square()
    betas = (1 - wave[1:] / wave[:-1]).clamp(max=LARGEST_BETA)
    return NoiseSchedule(torch.cumprod(1 - betas, dim=0).float())


def simple_loss(
    predicted_noise: Float[Tensor, "batch *shape"],
    noise: Float[Tensor, "batch *shape"],
) -> Float[Tensor, ""]:
    """Return the mean squared error of the noise that a network sees in images.

    A network that always answers 0 has a loss of 1.

    Source: Ho et al. (2020), equation 14. Theirs is the sum over the pixels.
    """
    return mse_loss(predicted_noise, noise)
