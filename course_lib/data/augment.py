"""Small random changes that keep the class of a picture."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

BACKGROUND = -1.0


@dataclass(frozen=True)
class RandomAffine:
    """Shift, turn, stretch and slant every image by random amounts, evenly spread between minus and plus a limit.

    Args:
        shift_px: limit of the shift in pixels, separately down and to the right.
        rotation_degrees: limit of the turn.
        stretch: limit of the change of width and of height, separately, as a fraction.
        slant: limit of the shear, in pixels to the side per pixel of height.
        whole_pixels: shift by whole numbers of pixels, which blurs nothing; then the limit is one, too.

    Pixels between the old ones are interpolated; what enters at the border is background, -1. The amounts come from
    torch's global random state on the device of the images.
    """

    shift_px: float = 0.0
    rotation_degrees: float = 0.0
    stretch: float = 0.0
    slant: float = 0.0
    whole_pixels: bool = False

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
