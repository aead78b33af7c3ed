"""Read captions off images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.data.captions import SLANT, Captioned, lean, thickness, upright
from course_lib.data.images import to_unit_range
from course_lib.evaluation.judge import Judge


@dataclass(frozen=True)
class CaptionReader:
    """Says what an image shows: the digit by the judge, bold and slanted by a
    measurement and a threshold.

    Args:
        judge: is shown the image made upright, for it learnt upright digits.
        bold_above: the thickness that parts bold images from others.
    """

    judge: Judge
    bold_above: float

    def read(self, images: Float[Tensor, "n 1 side side"]) -> Int[Tensor, "n 3"]:
        """Return the condition that an image, with pixels in [-1, 1], shows.

        Raises:
            InputError: the judge does not know images of this form.
        """
        is_bold = thickness(images) > self.bold_above
        is_slanted = lean(images) > SLANT / 2
        digits = self.judge.classes(upright(images))
        return torch.stack([digits, is_bold.long(), is_slanted.long()], dim=1)


def caption_reader(judge: Judge, real: Captioned) -> CaptionReader:
    """Set the threshold halfway between the mean thickness of real bold images and
    that of the others.
    """
    found = thickness(to_unit_range(real.images))
    is_bold = real.conditions[:, 1] == 1
    halfway = (found[is_bold].mean() + found[~is_bold].mean()) / 2
    return CaptionReader(judge, halfway.item())
