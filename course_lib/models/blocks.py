"""Parts that several networks share."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from course_lib.errors import InputError

LEAK = 0.2


class GaussianNoise(nn.Module):
    """Add noise from N(0, std^2) while training; change nothing while evaluating.

    Raises:
        InputError: `std` is negative, infinite or no number.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        if not 0 <= std < math.inf:
            raise InputError(
                f"std={std} is no spread: use a finite number of at least 0"
            )
        self.std = std

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        noisy = self.training and self.std > 0
        return x + self.std * torch.randn_like(x) if noisy else x

    def extra_repr(self) -> str:
        return f"std={self.std}"


class Dropout(nn.Module):
    """Set each number to 0 with the given probability while training, and scale the
    others up to keep the mean.

    The same function as `torch.nn.Dropout`. On a CPU torch draws its mask with a
    Bernoulli sampler that is slow; comparing uniform numbers with the probability is
    faster.

    Raises:
        InputError: `probability` is below 0, or 1 or more.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise InputError(
                f"probability={probability} cannot be the share of numbers dropped: "
                "use at least 0 and below 1"
            )
        self.probability = probability

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.probability == 0:
            return x
        keep = torch.rand_like(x, dtype=torch.float32) >= self.probability
        return x * (keep.to(x.dtype) / (1 - self.probability))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"


def weight_normalised(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Give a layer weights w = g v / |v|, with one length g per output.

    So the scale is learnt apart from the direction.

    Source: Salimans and Kingma (2016), Weight Normalization, section 2.
    """
    return weight_norm(layer, dim=0)


@torch.no_grad()
def initialise_from_data(
    network: nn.Module, images: Float[Tensor, "batch channels height width"]
) -> None:
    """Scale and shift each weight-normalised layer so that its outputs on `images`
    have mean 0 and variance 1.

    The layers are taken in the order in which data flows through them, each seeing
    the outputs of those already set.

    Source: Salimans and Kingma (2016), Weight Normalization, section 3.
    """

    def standardise(
        layer: nn.Module, inputs: tuple[Tensor], output: Tensor
    ) -> Tensor:
        others = [0, *range(2, output.ndim)]  # all axes but that of the outputs
        mean, std = output.mean(others), output.std(others).clamp_min(1e-6)
        length = layer.parametrizations.weight.original0  # (outputs, 1, ...)
        length.div_(std.view_as(length))
        layer.bias.copy_((layer.bias - mean) / std)
        shape = [1, -1] + [1] * (output.ndim - 2)
        return (output - mean.view(shape)) / std.view(shape)

    layers = [
        part for part in network.modules() if hasattr(part, "parametrizations")
    ]
    hooks = [layer.register_forward_hook(standardise) for layer in layers]
    network(images)
    for hook in hooks:
        hook.remove()


class Augmented(nn.Module):
    """A network that sees its images through a random change, while training.

    Around a GAN's discriminator it changes real and generated images alike, and the
    generator's gradient passes through the change.
    """

    def __init__(
        self, network: nn.Module, augmentation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.network = network
        self.augmentation = augmentation

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch *outputs"]:
        return self.network(self.augmentation(images) if self.training else images)
