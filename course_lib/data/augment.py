"""Small random changes that keep the class of a picture."""

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

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
