"""Small random changes that keep the class of a picture."""

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

BACKGROUND = -1.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class RandomAffine:
    """Shift, turn, stretch and slant every image by random amounts, evenly spread between minus and plus a limit.

    Args:
        shift_px: limit of the shift in pixels, separately down and to the right; at most 64, which is more than twice
            the side of an MNIST digit and moves most of them out of sight.
        rotation_degrees: limit of the turn; at most 180, which already gives every angle.
        stretch: limit of the change of width and of height, separately, as a fraction; below 1, where nothing of a
            width would be left.
        slant: limit of the shear, in pixels to the side per pixel of height; below 1, which is 45 degrees.
        whole_pixels: shift by whole numbers of pixels, which blurs nothing; then the limit is one, too.

    Pixels between the old ones are interpolated; what enters at the border is background, -1. The amounts come from
    torch's global random state on the device of the images.

    Raises:
        pydantic.ValidationError: a ValueError; what was given is no number, is out of range, or is no whole number of
            pixels where it has to be one. It says which.
    """

    shift_px: Annotated[float, Field(ge=0, le=64, description="shift them at random by up to so many pixels")] = 0.0
    rotation_degrees: Annotated[
        float, Field(ge=0, le=180, description="turn them at random by up to so many degrees")
    ] = 0.0
    stretch: Annotated[float, Field(ge=0, lt=1, description="change width and height by up to this share")] = 0.0
    slant: Annotated[float, Field(ge=0, lt=1, description="slant them by up to so many pixels per row")] = 0.0
    whole_pixels: Annotated[bool, Field(description="shift by whole numbers of pixels, which blurs nothing")] = False

    def __post_init__(self) -> None:
        if self.whole_pixels and not self.shift_px.is_integer():
            raise ValueError(f"shift_px={self.shift_px} is no whole number, and whole_pixels=True needs one")

    def __call__(self, images: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch channels side side"]:
        batch, _, side, _ = images.shape
        amounts = torch.rand(batch, 6, device=images.device) * 2 - 1
        angle = amounts[:, 0] * math.radians(self.rotation_degrees)
        wide, high = 1 + self.stretch * amounts[:, 1], 1 + self.stretch * amounts[:, 2]
        slant = self.slant * amounts[:, 3]
        if self.whole_pixels:  # every shift from -limit to limit is as likely as any other
            shifts = (amounts[:, 4:] * (self.shift_px + 0.5)).round().clamp(-self.shift_px, self.shift_px)
        else:
            shifts = amounts[:, 4:] * self.shift_px
        right, down = shifts.T * 2 / side  # affine_grid's picture is 2 wide and high
        across = torch.stack([angle.cos() * wide, slant - angle.sin() * wide, right], dim=1)
        along = torch.stack([angle.sin() * high, angle.cos() * high, down], dim=1)
        grid = affine_grid(torch.stack([across, along], dim=1), list(images.shape), align_corners=False)
        # Outside the picture grid_sample finds 0: take the background for 0 while it works.
        return grid_sample(images - BACKGROUND, grid, align_corners=False) + BACKGROUND


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class DifferentiableAugmentation:
    """Change the colour of every image, shift it and cut a hole into it, so that gradients reach the image.

    A GAN with few pictures shows them to its discriminator only so changed, and the generated ones, too: then the
    discriminator cannot learn the few by heart, and the generator need not draw what was changed. Each image gets
    random amounts of its own, from torch's global random state on the device of the images.

    Args:
        colour: add -0.5 to 0.5 to all pixels, then multiply the differences of a pixel's channels from their mean by 0
            to 2, and those of all pixels from the image's mean by 0.5 to 1.5. Values may leave [-1, 1].
        translation: limit of the shift down and to the right, in whole pixels: this share of the side, rounded.
        cutout: side of the hole as a share of the image's side, rounded; its centre lies anywhere in the image.

    What enters at the border, and the hole, are 0: grey.

    Source: Zhao et al. (2020), Differentiable augmentation for data-efficient GAN training, sections 3 and 4, and the
    authors' code; their policy for few pictures is (colour=True, translation=1/8, cutout=1/2).
    """

    colour: Annotated[bool, Field(description="change brightness, saturation and contrast at random")] = False
    translation: Annotated[
        float, Field(ge=0, le=1, description="shift what D sees by up to this share of the side")
    ] = 0.0
    cutout: Annotated[float, Field(ge=0, le=1, description="cut a hole of this share of the side into what D sees")] = (
        0.0
    )

    def __call__(self, images: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch channels side side"]:
        if self.colour:
            images = _recoloured(images)
        side = images.shape[-1]
        if shift_px := round(self.translation * side):
            images = _shifted(images, shift_px)
        if hole_px := round(self.cutout * side):
            images = _with_hole(images, hole_px)
        return images


def _recoloured(images: Tensor) -> Tensor:
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, device=images.device)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + 2 * saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (0.5 + contrast) * (images - mean)


def _shifted(images: Tensor, limit_px: int) -> Tensor:
    batch, _, side, _ = images.shape
    at = torch.arange(side, device=images.device)
    shifts = torch.randint(-limit_px, limit_px + 1, (2, batch, 1), device=images.device)
    # Where each row and column comes from; the frame of one pixel stands for all that lies outside.
    rows, columns = (at - shifts + 1).clamp(0, side + 1)  # (batch, side) each
    framed = pad(images, [1, 1, 1, 1])
    everyone = torch.arange(batch, device=images.device)
    moved = framed[everyone[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (batch, side, side, channels)
    return moved.permute(0, 3, 1, 2)


def _with_hole(images: Tensor, hole_px: int) -> Tensor:
    batch, _, side, _ = images.shape
    at = torch.arange(side, device=images.device)
    first = torch.randint(0, side, (2, batch, 1), device=images.device) - hole_px // 2
    rows, columns = (at >= first) & (at < first + hole_px)  # (batch, side) each
    return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]


def mirrored_at_random(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Mirror about half of the images, left to right."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def with_noise(
    images: Float[Tensor, "batch channels height width"],
    noise_factor: float,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Add Gaussian noise to every pixel, and clip the sum to [-1, 1].

    Args:
        images: pixels in [-1, 1].
        noise_factor: standard deviation of the noise where pixels are in [0, 1]; here it is twice as large.
        generator: where the noise comes from; None is torch's global random state, on the device of the images.
    """
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + 2 * noise_factor * noise).clamp(-1, 1)


def binarised(
    images: Float[Tensor, "batch channels height width"], *, generator: torch.Generator | None = None
) -> Float[Tensor, "batch channels height width"]:
    """Make every pixel white (1) with a probability of its brightness, else black (-1).

    Args:
        images: pixels in [-1, 1]; a grey one of 0 is white every other time.
        generator: as for `with_noise`.

    Source: Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks; they did so with
    MNIST.
    """
    chance = torch.rand(images.shape, generator=generator, device=images.device)
    return torch.where(chance < (images + 1) / 2, 1.0, -1.0)
