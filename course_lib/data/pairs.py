"""Pairs for image to image: a given image, and the image that it shall be turned into.

Each task makes its pairs from images alone, so no pair need be collected.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from course_lib.errors import InputError

COARSER = 4  # times as few pixels a side


@dataclass(frozen=True)
class Task:
    """What is given, and what the right answers are: the image, moved sideways.

    Args:
        given: makes the given image from an image.
        moves: by how many sevenths of its side the right answers are the image moved
            to the right; most tasks have one answer, the image itself.
    """

    given: Callable[[Tensor], Tensor]
    moves: tuple[int, ...] = (0,)

    def answers(self, images: Float[Tensor, "n channels side side"]) -> Float[Tensor, "answers n channels side side"]:
        """Return every right answer for each image."""
        return torch.stack([moved(images, move) for move in self.moves])

    def nearest(
        self,
        drawn: Float[Tensor, "n channels side side"],
        images: Float[Tensor, "n channels side side"],
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n channels side side"]]:
        """Compare what was drawn with the right answer next to it.

        Returns:
            The mean squared error against that answer, and what was drawn, moved
            back as that answer would have to be.
        """
        errors = (self.answers(images) - drawn).square().mean((2, 3, 4))
        error, place = errors.min(dim=0)  # both (n,)
        back = torch.stack([moved(drawn, -move) for move in self.moves])
        return error, back[place, torch.arange(len(drawn))]


def left_half(
    images: Float[Tensor, "n channels side side"],
) -> Float[Tensor, "n channels side side"]:
    """Hide the right half: its pixels become 0, halfway from black to white."""
    given = images.clone()
    given[..., images.shape[-1] // 2 :] = 0
    return given


def coarse(
    images: Float[Tensor, "n channels side side"],
) -> Float[Tensor, "n channels side side"]:
    """Give each square of 4 x 4 pixels its mean.

    Raises:
        InputError: the side is no multiple of 4.
    """
    if images.shape[-1] % COARSER:
        raise InputError(
            f"images of {images.shape[-1]} px cannot be made {COARSER} times as "
            f"coarse: use a side that is a multiple of {COARSER}"
        )
    return interpolate(avg_pool2d(images, COARSER), scale_factor=COARSER)


def moved(images: Float[Tensor, "n channels side side"], sevenths: int) -> Float[Tensor, "n channels side side"]:
    """Move images to the right by so many sevenths of their side, rounded up, or to
    the left if negative; what enters is background, -1.
    """
    shift = -(-images.shape[-1] * abs(sevenths) // 7)
    if sevenths < 0:
        return pad(images[..., shift:], (0, shift), value=-1.0)
    return pad(images, (shift, 0), value=-1.0)[..., : images.shape[-1]]


TASKS = {
    "half": Task(left_half),
    "super_resolution": Task(coarse),
    "next_frame": Task(lambda images: images, moves=(-1, 1)),
}
