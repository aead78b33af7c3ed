"""A small U-Net that sees how much noise is in an image, and which."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.errors import InputError

LONGEST = 10_000.0


class Block(nn.Module):
    """Two convolutions with a skip connection around them; between the two, what the
    time embedding says is added to every map.
    """

    def __init__(self, inputs: int, outputs: int, embedding_dim: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
        )
        self.of_time = nn.Linear(embedding_dim, outputs)
        self.second = nn.Sequential(
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(
        self,
        x: Float[Tensor, "batch inputs side side"],
        embedding: Float[Tensor, "batch embedding_dim"],
    ) -> Float[Tensor, "batch outputs side side"]:
        shift = self.of_time(embedding)[:, :, None, None]  # (batch, outputs, 1, 1)
        return self.second(self.first(x) + shift) + self.shortcut(x)


class UNet(nn.Module):
    """Predict the noise in noisy images.

    Two steps down halve the side and double the maps, two steps up undo it. On the
    way up, the maps of the way down with the same side stand beside those that come
    from below: these skips carry where everything is. The number of the noise step
    reaches every block as an embedding.

    Args:
        side_px: side of the square images, a multiple of 4 from 8 on.
        width: maps at the full side.

    Raises:
        InputError: a size cannot be.

    Source: Ho et al. (2020), Denoising Diffusion Probabilistic Models, appendix B,
    made small: fewer maps and steps, one block each, no attention, and batch norm,
    which is faster on a processor, for group norm. U-Net: Ronneberger et al. (2015).
    """

    def __init__(self, *, channels: int, side_px: int, width: int = 16) -> None:
        super().__init__()
        if side_px < 8 or side_px % 4:
            raise InputError(
                f"side_px={side_px} cannot be halved twice: use a multiple of 4 "
                "from 8 on"
            )
        for name, size in {"channels": channels, "width": width}.items():
            if size < 1:
                raise InputError(f"{name}={size} makes no network: use at least 1")
        self.channels, self.side_px = channels, side_px
        dim = self.embedding_dim = 4 * width
        self.embed = nn.Sequential(
            nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU()
        )
        one, two, four = width, 2 * width, 4 * width
        self.start = nn.Conv2d(channels, one, 3, padding=1)
        self.down_1 = Block(one, one, dim)
        self.shrink_1 = nn.Conv2d(one, two, 3, stride=2, padding=1)
        self.down_2 = Block(two, two, dim)
        self.shrink_2 = nn.Conv2d(two, four, 3, stride=2, padding=1)
        self.middle = Block(four, four, dim)
        self.enlarge = nn.Upsample(scale_factor=2)
        self.up_2 = Block(four + two, two, dim)
        self.up_1 = Block(two + one, one, dim)
        self.end = nn.Sequential(
            nn.BatchNorm2d(one), nn.SiLU(), nn.Conv2d(one, channels, 3, padding=1)
        )

    def forward(
        self,
        noisy: Float[Tensor, "batch channels side side"],
        step: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels side side"]:
        embedding = self.embed(time_embedding(step, self.embedding_dim))
        x = self.down_1(self.start(noisy), embedding)  # the full side
        y = self.down_2(self.shrink_1(x), embedding)  # a half
        z = self.middle(self.shrink_2(y), embedding)  # a quarter
        y = self.up_2(torch.cat([self.enlarge(z), y], dim=1), embedding)
        x = self.up_1(torch.cat([self.enlarge(y), x], dim=1), embedding)
        return self.end(x)


def time_embedding(
    step: Int[Tensor, " batch"], dim: int
) -> Float[Tensor, "batch {dim}"]:
    """Return sines and cosines of a number, from fast to slow waves: close numbers
    have similar embeddings, and no number is too large.

    Source: Vaswani et al. (2017), Attention Is All You Need, section 3.5.
    """
    half = dim // 2
    rates = torch.arange(half, device=step.device) / half
    angles = step[:, None] * torch.exp(-math.log(LONGEST) * rates)  # (batch, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
