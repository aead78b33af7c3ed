"""Digits with captions by formula: "bold slanted seven" says what was done to a seven.

Every digit is first made upright, so that "slanted" is the caption's doing and not the
writer's. What a caption says of an image can then be measured: `lean`, `thickness`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, max_pool2d

from course_lib.data.images import ImageData, to_unit_range
from course_lib.errors import InputError

DIGITS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)
NAMES = ("digit", "bold", "slanted")
ATTRIBUTES = (10, 2, 2)  # how many values each of these has
SLANT = 0.4  # pixels to the right per row upwards
SMALL_PX = 16  # below it a stroke is about one pixel wide
FAINT = 0.6  # how bright a small picture's bold strokes are beside the old ones
CAPTIONED = ("digits", "mnist")


class Captioned(NamedTuple):
    """Images, 0 to 255, and the condition of each: digit, bold (0 or 1), slanted."""

    images: UInt8[Tensor, "n 1 side side"]
    conditions: Int[Tensor, "n 3"]


def captioned(data: ImageData) -> tuple[Captioned, Captioned]:
    """Return the training and the test images of some digits, each in four forms:
    plain, bold, slanted, and both.

    Raises:
        InputError: the data are no digits.
    """
    if data.name not in CAPTIONED:
        raise InputError(f"data {data.name!r} have no captions: use {' or '.join(CAPTIONED)}")
    return (
        _in_four_forms(data.train_images, data.train_labels),
        _in_four_forms(data.test_images, data.test_labels),
    )


def caption(condition: Int[Tensor, "3"]) -> str:
    """Put a condition into words: (7, 1, 0) is "bold seven"."""
    digit, is_bold, is_slanted = condition.tolist()
    words = ["bold"] * is_bold + ["slanted"] * is_slanted + [DIGITS[digit]]
    return " ".join(words)


def conditions_of(captions: Sequence[str]) -> Int[Tensor, "captions 3"]:
    """Read captions; the words may stand in any order.

    Raises:
        InputError: a word is unknown or comes twice, or there is not one digit.
    """
    found = []
    for text in captions:
        words = text.lower().split()
        digits = [DIGITS.index(word) for word in words if word in DIGITS]
        unknown = set(words) - {*DIGITS, "bold", "slanted"}
        if unknown or len(digits) != 1 or len(set(words)) < len(words):
            raise InputError(
                f"the caption {text!r} cannot be read: write one digit from "
                "zero to nine in words, and bold or slanted or both before it"
            )
        found.append([digits[0], "bold" in words, "slanted" in words])
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


def lean(
    images: Float[Tensor, "n 1 side side"],
) -> Float[Tensor, " n"]:
    """Return by how many pixels to the right the ink moves per row upwards.

    It is the slope of the regression of a point of ink's place along the row on its
    height, each point counted by its brightness. Pixels are in [-1, 1].
    """
    side = images.shape[-1]
    ink = (images[:, 0] + 1) / 2  # (n, row, column)
    along = torch.arange(side) - (side - 1) / 2
    total = ink.sum((1, 2)).clamp_min(1e-6)
    middle_x = (ink.sum(1) * along).sum(1) / total
    middle_y = (ink.sum(2) * along).sum(1) / total
    right = along[None, None, :] - middle_x[:, None, None]
    up = middle_y[:, None, None] - along[None, :, None]
    height = (ink * up * up).sum((1, 2)).clamp_min(1e-6)
    return (ink * right * up).sum((1, 2)) / height


def thickness(
    images: Float[Tensor, "n 1 side side"],
) -> Float[Tensor, " n"]:
    """Return how much ink there is for each unit of edge.

    The edge is the sum of the differences between neighbours, so a stroke twice as
    wide has about twice the thickness, however long it is. Pixels are in [-1, 1].
    """
    ink = (images + 1) / 2
    down = ink.diff(dim=2).abs().sum((1, 2, 3))
    along = ink.diff(dim=3).abs().sum((1, 2, 3))
    return ink.sum((1, 2, 3)) / (down + along).clamp_min(1e-6)


def slanted(images: Float[Tensor, "n 1 side side"], slant: Float[Tensor, "*n"]) -> Float[Tensor, "n 1 side side"]:
    """Move each row to the right, by `slant` pixels for each row above the middle."""
    change = torch.zeros(len(images), 2, 3)
    change[:, 0, 0] = change[:, 1, 1] = 1
    change[:, 0, 1] = slant
    grid = affine_grid(change, list(images.shape), align_corners=False)
    # Outside of the image grid_sample finds 0: take the background for 0 meanwhile.
    return grid_sample(images + 1, grid, align_corners=False) - 1


def upright(
    images: Float[Tensor, "n 1 side side"],
) -> Float[Tensor, "n 1 side side"]:
    """Slant images back until their `lean` is 0."""
    return slanted(images, -lean(images))


def bold(
    images: Float[Tensor, "n 1 side side"],
) -> Float[Tensor, "n 1 side side"]:
    """Make strokes a pixel wider on every side; fainter there in small images."""
    if images.shape[-1] >= SMALL_PX:
        return max_pool2d(images, 3, stride=1, padding=1)
    ink = images + 1
    beside = torch.maximum(
        max_pool2d(ink, (3, 1), stride=1, padding=(1, 0)),
        max_pool2d(ink, (1, 3), stride=1, padding=(0, 1)),
    )
    return torch.maximum(ink, FAINT * beside) - 1


def _in_four_forms(pixels: UInt8[Tensor, "n 1 side side"], digits: Int[Tensor, " n"]) -> Captioned:
    plain = upright(to_unit_range(pixels))
    slant, forms, conditions = torch.tensor(SLANT), [], []
    for is_bold in (0, 1):
        written = bold(plain) if is_bold else plain
        for is_slanted in (0, 1):
            form = slanted(written, slant) if is_slanted else written
            brightness = ((form + 1) * 127.5).round().clamp(0, 255)
            forms.append(brightness.to(torch.uint8))
            said = torch.tensor([is_bold, is_slanted]).expand(len(digits), 2)
            conditions.append(torch.cat([digits[:, None], said], dim=1))
    return Captioned(torch.cat(forms), torch.cat(conditions))
