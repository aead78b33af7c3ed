"""Penalties on the slope of a discriminator: its gradient over the images.

Each is added to the discriminator's loss. It runs the discriminator once more, and
keeps the graph: the step differentiates the gradient once again, over the weights.

In bfloat16 such second-order gradients are off by some percent, so all is done in
float32 (in float64, where images and weights are), also inside `torch.autocast`.
Accelerate puts the autocast into the network's own `forward`, where nothing outside
can turn it off. Such a network is refused, and so is what `torch.compile` returns.
Make `bare = copy.copy(discriminator)` before `accelerator.prepare` and give that: it
shares the weights. Call `backward` outside of autocast, as PyTorch asks for.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from course_lib.errors import InputError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def gradient_penalty(
    discriminator: nn.Module,
    real: Float[Tensor, "batch *shape"],
    fake: Float[Tensor, "batch *shape"],
    condition: Shaped[Tensor, "batch *given"] | None = None,
    *,
    weight: float = 10.0,
) -> Float[Tensor, ""]:
    """Penalise slopes other than 1 between real images and fakes.

    weight * mean (|gradient| - 1)^2, each gradient at a point of its own, drawn
    uniformly on the line from a fake to a real image. The penalty is two-sided:
    slopes below 1 cost, too. No gradient reaches the generator.

    Args:
        condition: what the discriminator is told of each pair, too, if anything.
        weight: the paper's lambda.

    Raises:
        InputError: the discriminator has batch normalisation, or another `forward`
            than its class.

    Source: Gulrajani et al. (2017), section 4 and algorithm 1.
    """
    shape = (len(real), *[1] * (real.ndim - 1))  # one number per image
    epsilon = torch.rand(shape, device=real.device)
    between = epsilon * real + (1 - epsilon) * fake
    gradients = _gradients(discriminator, between, condition)
    # `vector_norm` has derivative 0 at 0, where the square root's is infinite.
    lengths = torch.linalg.vector_norm(gradients, dim=1)
    return weight * (lengths - 1).square().mean()


def r1_penalty(
    discriminator: nn.Module,
    real: Float[Tensor, "batch *shape"],
    condition: Shaped[Tensor, "batch *given"] | None = None,
    *,
    gamma: float = 10.0,
) -> Float[Tensor, ""]:
    """Penalise any slope at real images: gamma / 2 * mean |gradient|^2.

    Args:
        condition: what the discriminator is told of each image, too, if anything.

    Raises:
        InputError: as for `gradient_penalty`.

    Source: Mescheder et al. (2018), section 4.1. The authors' code multiplies by its
    `reg_param` and has no 1/2. R3GAN (Huang et al., 2024, section 2) adds R1 and R2
    with one gamma to the relativistic loss. Its code takes the gradients from the
    pass that gives the loss; ours needs a pass each, to choose its precision.
    """
    return gamma / 2 * _mean_squared_slope(discriminator, real, condition)


def r2_penalty(
    discriminator: nn.Module,
    fake: Float[Tensor, "batch *shape"],
    condition: Shaped[Tensor, "batch *given"] | None = None,
    *,
    gamma: float = 10.0,
) -> Float[Tensor, ""]:
    """Penalise any slope at fakes, as `r1_penalty` does at real images.

    No gradient reaches the generator.

    Source: Mescheder et al. (2018), section 4.1.
    """
    return gamma / 2 * _mean_squared_slope(discriminator, fake, condition)


def _mean_squared_slope(
    discriminator: nn.Module,
    images: Float[Tensor, "batch *shape"],
    condition: Shaped[Tensor, "batch *given"] | None,
) -> Float[Tensor, ""]:
    return _gradients(discriminator, images, condition).square().sum(dim=1).mean()


def _gradients(
    discriminator: nn.Module,
    images: Float[Tensor, "batch *shape"],
    condition: Shaped[Tensor, "batch *given"] | None,
) -> Float[Tensor, "batch numbers"]:
    """Return the gradient of each logit over its own image, one row per image."""
    _check_can_be_penalised(discriminator)
    precision = torch.promote_types(images.dtype, torch.float32)
    images = images.detach().to(precision).requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        inputs = (images,) if condition is None else (images, condition)
        # A logit depends on its own image alone, so one sum serves them all.
        logits = discriminator(*inputs).sum()
        (gradients,) = torch.autograd.grad(logits, images, create_graph=True)
    return gradients.flatten(start_dim=1)


def _check_can_be_penalised(discriminator: nn.Module) -> None:
    for name, part in discriminator.named_modules():
        where = f"{type(part).__name__} {name}".strip()
        if isinstance(part, BATCH_NORMS):
            raise InputError(
                f"found {where} in the discriminator: its outputs depend on the "
                "whole batch, so no image has a gradient of its own; use layer "
                "normalisation or none"
            )
        if "forward" in vars(part):
            raise InputError(
                f"found another forward in {where} than that of its class, as "
                "Accelerate and torch.compile put there: it chooses the precision; "
                "give the bare network, a copy.copy made before it was prepared"
            )
