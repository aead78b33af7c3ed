"""A GAN that turns one image into another: both networks see the given one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.models import dcgan
from course_lib.models.blocks import LEAK
from course_lib.models.dcgan import check_sizes, doubling, initialise, sides


class Generator(nn.Module):
    """Turn a given image and a latent vector into another image, pixels in [-1, 1].

    Convolutions halve the side of the given image as a discriminator's do, down to a
    small map. There the latent vector joins, one map for each of its numbers.
    Transposed convolutions double the side again as a generator's do. Each also
    takes the map of its own side from the way down: a skip connection, so that the
    small map need not remember where every stroke was.

    Args:
        side_px: side of the square images, a multiple of 4 from 8 on; both images
            have it.
        width: maps at half of the side; twice as many at a quarter, and so on.

    Raises:
        InputError: a size cannot be.

    Source: Isola et al. (2017), section 3.2.1 and the appendix, much smaller. They
    give no latent vector: dropout is their only noise.
    """

    def __init__(
        self, *, channels: int, side_px: int, latent_dim: int = 16, width: int = 32
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, latent_dim=latent_dim, width=width)
        self.latent_dim = latent_dim
        halvings = len(sides(side_px, 4)) - 1
        maps = [width * 2**number for number in range(halvings)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        inputs = channels
        for number, outputs in enumerate(maps):
            layer = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=number == 0)
            norm = [nn.BatchNorm2d(outputs)] if number > 0 else []
            self.down.append(nn.Sequential(layer, *norm, nn.LeakyReLU(LEAK)))
            inputs = outputs
        inputs = maps[-1] + latent_dim
        for outputs in maps[-2::-1]:
            layer = doubling(inputs, outputs, 4, bias=False)
            parts = [layer, nn.BatchNorm2d(outputs), nn.ReLU()]
            self.up.append(nn.Sequential(*parts))
            inputs = 2 * outputs  # those of the way down stand beside them
        last = doubling(inputs, channels, 4, bias=True)
        self.up.append(nn.Sequential(last, nn.Tanh()))
        initialise(self, 4)

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        given: Float[Tensor, "batch channels side side"],
    ) -> Float[Tensor, "batch channels side side"]:
        maps, seen = given, []
        for layer in self.down:
            maps = layer(maps)
            seen.append(maps)
        *seen, maps = seen
        spread = latent[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        maps = torch.cat([maps, spread], dim=1)
        for layer in self.up[:-1]:
            maps = torch.cat([layer(maps), seen.pop()], dim=1)
        return self.up[-1](maps)


class Discriminator(nn.Module):
    """Turn images, and those that they were made from, into logits of "real".

    The given image stands beside the other one as further channels, so an image that
    looks real and does not fit the given one can be told, too.

    Args:
        side_px, width, batch_norm: as for `dcgan.Discriminator`.

    Raises:
        InputError: as for `dcgan.Discriminator`.

    Source: Isola et al. (2017), section 3.1, equation 1. Theirs judges patches of
    the image, ours all of it: our images are smaller than their patches.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        width: int = 32,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.network = dcgan.Discriminator(
            channels=2 * channels,
            side_px=side_px,
            width=width,
            batch_norm=batch_norm,
        )

    def forward(
        self,
        images: Float[Tensor, "batch channels side side"],
        given: Float[Tensor, "batch channels side side"],
    ) -> Float[Tensor, " batch"]:
        return self.network(torch.cat([images, given], dim=1))
