"""The generator of the semi-supervised GAN. Its discriminator is the classifier of
`course_lib.models.classifier`.
"""

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.errors import InputError


class Generator(nn.Module):
    """Turn latent vectors into images with pixels in [-1, 1].

    A dense layer lays out 64 maps of a quarter of the side; two transposed
    convolutions double the side each. The kernel (4) is a multiple of the stride
    (2), which avoids a checkerboard.

    Args:
        side_px: side of the square images, a multiple of 4.
    """

    def __init__(self, *, channels: int, side_px: int, latent_dim: int) -> None:
        super().__init__()
        if side_px < 8 or side_px % 4:
            raise InputError(
                f"side_px={side_px} cannot be reached by doubling twice: "
                "use a multiple of 4, at least 8"
            )
        self.latent_dim = latent_dim
        start = side_px // 4
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 64 * start * start, bias=False),
            nn.Unflatten(1, (64, start, start)),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> Float[Tensor, "batch channels side side"]:
        return self.layers(latent)
