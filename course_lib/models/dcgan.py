"""DCGAN: a generator and a discriminator made of convolutions, for any small side.

Two plans share the file. `kernel=4` is DCGAN's own, `kernel=5` that of MathWorks'
example on photographs of flowers.
"""

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.errors import InputError
from course_lib.models.blocks import LEAK, Dropout

DCGAN_STD = 0.02
KERNELS = (4, 5)


class Generator(nn.Module):
    """Turn latent vectors into images with pixel values in [-1, 1].

    A dense layer lays out a small feature map. Each transposed convolution then
    doubles its side and halves its channels. Batch norm and ReLU stand between the
    layers, and tanh at the end, which has no batch norm.

    Args:
        side_px: side of the square images, a multiple of 4 from 8 on; see `sides`.
        width: channels at half of the side; twice as many at a quarter, and so on.
        kernel: 4 for DCGAN's plan. Its kernel is a multiple of the stride, so every
            pixel is reached by equally many weights.
            5 for MathWorks' plan, from 12 px on. The first convolution has stride 1
            and nothing is cropped, so a map of 4 x 4 px becomes 8 x 8. The dense
            layer has neither batch norm nor activation behind it.

    Raises:
        InputError: a size cannot be.

    Source: Radford et al. (2015), section 3, weights drawn from N(0, 0.02^2); their
    figure has kernels of 5 x 5, their Torch code those of 4 x 4. At 64 px theirs has
    width 128. MathWorks, Train Generative Adversarial Network (GAN), with the
    initialisation of Glorot and Bengio (2010); at 64 px and width 64, as there.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        latent_dim: int = 100,
        width: int = 64,
        kernel: int = 4,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, latent_dim=latent_dim, width=width)
        self.latent_dim = latent_dim
        *grown, start = sides(side_px, kernel)
        maps = width * 2 ** (len(grown) - 1)
        if kernel == 4:
            layers = [
                nn.Linear(latent_dim, maps * start**2, bias=False),
                nn.Unflatten(1, (maps, start, start)),
            ]
        else:
            layers = [
                nn.Linear(latent_dim, 2 * maps * (start - 4) ** 2),
                nn.Unflatten(1, (2 * maps, start - 4, start - 4)),
                nn.ConvTranspose2d(2 * maps, maps, kernel),
            ]
        layers += [nn.BatchNorm2d(maps), nn.ReLU()]
        for _ in grown[1:]:
            layers += [
                doubling(maps, maps // 2, kernel, bias=kernel == 5),
                nn.BatchNorm2d(maps // 2),
                nn.ReLU(),
            ]
            maps //= 2
        layers += [doubling(maps, channels, kernel, bias=True), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialise(self, kernel)

    def forward(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> Float[Tensor, "batch channels side side"]:
        return self.layers(latent)


class Discriminator(nn.Module):
    """Turn images with pixels in [-1, 1] into logits of "real".

    Each convolution halves the side and doubles the channels, with leaky ReLU behind
    it. Batch norm stands behind all convolutions but the first. `layers[:-1]` is the
    network without its last layer: it turns images into features, (batch, features).

    Args:
        side_px, width, kernel: as for the generator, whose mirror this is.
        dropout: share of the pixels that are set to 0 while training.
        batch_norm: without it a logit depends on its own image alone, as penalties
            on the slope need it.

    Raises:
        InputError: a size cannot be, or `dropout` is below 0, or 1 or more.

    Source: as for the generator.
    """

    def __init__(
        self,
        *,
        channels: int,
        side_px: int,
        width: int = 64,
        kernel: int = 4,
        dropout: float = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, width=width)
        *halved, last = sides(side_px, 4)
        layers: list[nn.Module] = [Dropout(dropout)] if dropout else []
        inputs, maps = channels, width
        for number in range(len(halved)):
            normed = batch_norm and number > 0
            bias = kernel == 5 or not normed
            padding = (kernel - 1) // 2
            layers.append(nn.Conv2d(inputs, maps, kernel, 2, padding, bias=bias))
            if normed:
                layers.append(nn.BatchNorm2d(maps))
            layers.append(nn.LeakyReLU(LEAK))
            inputs, maps = maps, 2 * maps
        layers += [nn.Flatten(), nn.Linear(inputs * last**2, 1)]
        self.layers = nn.Sequential(*layers)
        initialise(self, kernel)

    def forward(
        self, images: Float[Tensor, "batch channels side side"]
    ) -> Float[Tensor, " batch"]:
        return self.layers(images).squeeze(1)  # (batch, 1) -> (batch,)


def sides(side_px: int, kernel: int) -> list[int]:
    """Return the sides of the feature maps, from the image's own to the smallest.

    With kernels of 4 x 4 a side is halved at least twice, and until it is at most 7:
    64, 32, 16, 8, 4 and 28, 14, 7 and 8, 4, 2. With 5 x 5 it is halved until it is
    at most 8, and the dense layer's map is 4 px smaller still.

    Raises:
        InputError: halving does not lead there.
    """
    if kernel not in KERNELS:
        raise InputError(f"kernel={kernel} is no plan: use 4 or 5")
    smallest, largest, least = (8, 7, 2) if kernel == 4 else (12, 8, 1)
    found = [side_px]
    while found[-1] % 2 == 0 and (found[-1] > largest or len(found) <= least):
        found.append(found[-1] // 2)
    if side_px < smallest or side_px % 4 or found[-1] > 2 * largest:
        raise InputError(
            f"side_px={side_px} cannot be reached by doubling with kernels of "
            f"{kernel} x {kernel}: use a multiple of 4 from {smallest} on, such as "
            "16, 28, 32 or 64"
        )
    return found


def doubling(
    inputs: int, outputs: int, kernel: int, *, bias: bool
) -> nn.ConvTranspose2d:
    """Return the transposed convolution of a plan that doubles the side."""
    # 5 x 5 kernels leave one row and column short: output_padding adds them.
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, 2, (kernel - 1) // 2, kernel - 4, bias=bias
    )


def initialise(network: nn.Module, kernel: int) -> None:
    """Draw the weights of all layers as the plan has it, and set the biases to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if kernel == 4:
                nn.init.normal_(layer.weight, std=DCGAN_STD)
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        InputError: with the name of the first one.
    """
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name}={size} makes no network: use at least 1")
