"""A convolutional autoencoder: an image, a few numbers, and the image again."""

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.errors import InputError

HALVINGS = 3


class Encoder(nn.Module):
    """Turn images with pixels in [-1, 1] into vectors.

    Four convolutions with batch norm and ReLU; all but the first halve the side.
    With width 16 they have 16, 32, 64 and 128 channels. The mean over each map of
    the last one (global average pooling) leaves one number a map, and a dense layer
    turns these into the vector.

    Args:
        side_px: side of the square images, at least 8.
        latent_dim: numbers in a vector.
        width: channels of the first convolution.
        pooling: without it the dense layer sees the maps whole. It has more weights
            then, and need not guess where on a map something was.

    Raises:
        InputError: a size cannot be.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        latent_dim: int,
        width: int = 16,
        pooling: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(
            channels=channels, side_px=side_px, latent_dim=latent_dim, width=width
        )
        layers = _convolution(channels, width)
        maps = width
        for _ in range(HALVINGS):
            layers += _convolution(maps, 2 * maps, stride=2)
            maps *= 2
        side = sides(side_px)[-1]
        if pooling:
            layers.append(nn.AvgPool2d(side))  # (batch, maps, 1, 1)
            side = 1
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(maps * side**2, latent_dim)
        )

    def forward(
        self, images: Float[Tensor, "batch channels side side"]
    ) -> Float[Tensor, "batch latent_dim"]:
        return self.layers(images)


class Decoder(nn.Module):
    """Turn vectors into images, or into logits of their pixels: any real numbers.

    The mirror of the encoder. A dense layer lays out small maps; each step doubles
    their side by repeating pixels, then a convolution halves their number.

    Args:
        side_px, latent_dim, width: as for the encoder.

    Raises:
        InputError: a size cannot be.
    """

    def __init__(
        self, *, channels: int, side_px: int, latent_dim: int, width: int = 16
    ) -> None:
        super().__init__()
        _check_sizes(
            channels=channels, side_px=side_px, latent_dim=latent_dim, width=width
        )
        *grown, start = sides(side_px)
        maps = width * 2**HALVINGS
        layers = [
            nn.Linear(latent_dim, maps * start**2),
            nn.Unflatten(1, (maps, start, start)),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
        ]
        for side in reversed(grown):
            layers += [nn.Upsample(size=side), *_convolution(maps, maps // 2)]
            maps //= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(maps, channels, 3, padding=1))

    def forward(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> Float[Tensor, "batch channels side side"]:
        return self.layers(latent)


class Autoencoder(nn.Module):
    """Encode images with pixels in [-1, 1], then decode them; tanh ends it.

    `encoder` and `decoder` can be used alone; `decoder` here includes the tanh.

    Args:
        side_px, latent_dim, width: as for the encoder.

    Raises:
        InputError: a size cannot be.
    """

    def __init__(
        self, *, channels: int, side_px: int, latent_dim: int, width: int = 16
    ) -> None:
        super().__init__()
        sizes = {
            "channels": channels,
            "side_px": side_px,
            "latent_dim": latent_dim,
            "width": width,
        }
        self.encoder = Encoder(**sizes)
        self.decoder = nn.Sequential(Decoder(**sizes), nn.Tanh())

    def forward(
        self, images: Float[Tensor, "batch channels side side"]
    ) -> Float[Tensor, "batch channels side side"]:
        return self.decoder(self.encoder(images))


def sides(side_px: int) -> list[int]:
    """Return the sides of the maps, from the image's own to the smallest.

    A convolution with stride 2 rounds up: 28, 14, 7, 4 and 8, 4, 2, 1.
    """
    found = [side_px]
    for _ in range(HALVINGS):
        found.append((found[-1] + 1) // 2)
    return found


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def _check_sizes(*, side_px: int, **others: int) -> None:
    if side_px < 8:
        raise InputError(
            f"side_px={side_px} cannot be halved three times: use at least 8"
        )
    for name, size in others.items():
        if size < 1:
            raise InputError(f"{name}={size} makes no network: use at least 1")
