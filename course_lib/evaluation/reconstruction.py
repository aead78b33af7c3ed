"""How much of an image is left: mean squared error and PSNR."""

import math

from jaxtyping import Float
from torch import Tensor

RANGE = 2.0  # from -1 to 1


def mean_squared_errors(
    images: Float[Tensor, "n *shape"], reconstructions: Float[Tensor, "n *shape"]
) -> Float[Tensor, " n"]:
    """Return the mean squared error of each image's pixels on the scale of [0, 1].

    Args:
        images, reconstructions: pixels in [-1, 1].
    """
    errors = ((images - reconstructions) / RANGE).square()
    return errors.flatten(start_dim=1).mean(dim=1)  # (n, pixels) -> (n,)


def psnr(
    images: Float[Tensor, "n *shape"], reconstructions: Float[Tensor, "n *shape"]
) -> float:
    """Return the peak signal-to-noise ratio in decibels: 10 log10(range^2 / error).

    The error is the mean squared error over all images together: 10 dB is an error
    of 0.1 on the scale of [0, 1], 20 dB one of 0.01. Infinite where nothing is lost.

    Args:
        images, reconstructions: pixels in [-1, 1].
    """
    # Here, for it takes long to import, and every recipe would wait for it.
    from torchmetrics.functional.image import peak_signal_noise_ratio

    ratio = peak_signal_noise_ratio(reconstructions, images, data_range=RANGE)
    return ratio.item() if math.isfinite(ratio.item()) else math.inf
