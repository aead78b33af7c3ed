"""Run a generator backwards: which latent vector gives this image?"""

from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam

from course_lib.errors import InputError


class Inversion(NamedTuple):
    """For each image the latent vector found, what the generator makes of it, and
    the mean squared difference per pixel, pixels in [-1, 1].
    """

    latents: Float[Tensor, "n latent_dim"]
    images: Float[Tensor, "n channels side side"]
    errors: Float[Tensor, " n"]


def invert(
    generator: nn.Module,
    images: Float[Tensor, "n channels side side"],
    *,
    latent_dim: int,
    steps: int = 300,
    restarts: int = 4,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> Inversion:
    """Search for the latent vectors of images by gradient descent on the squared
    error, from several random starts, and keep the best of each image.

    The descent can end in a valley that is not the deepest, so an error is an upper
    bound, and more starts can only lower it. Nothing holds the latents near the
    origin: their lengths can be compared with latent_dim^(1/2), that of a random
    one. Adam's rate falls in a straight line to 0. The generator works in evaluation
    mode and is left as it was.

    Where training images have much smaller errors than test images, the generator
    has learnt them by heart.

    Args:
        restarts: starts for each image, drawn from N(0, 1).
        seed: decides the starts; the global random state is not touched.

    Raises:
        InputError: `steps` or `restarts` is below 1, there is no image, or the
            generator makes images of another shape.

    Source: Creswell and Bharath (2018), Inverting the Generator of a Generative
    Adversarial Network; to find memorised images: Webster et al. (2019), Detecting
    Overfitting of Deep Generative Networks via Latent Recovery.
    """
    if min(steps, restarts, len(images)) < 1:
        raise InputError(
            f"steps={steps}, restarts={restarts} and {len(images)} images find no "
            "latent: use at least 1 of each"
        )
    network = deepcopy(generator).eval().requires_grad_(False)
    count = len(images)
    start = torch.randn(
        restarts * count,
        latent_dim,
        generator=torch.Generator().manual_seed(seed),
        dtype=images.dtype,
    )
    latents = start.to(images.device).requires_grad_()
    targets = images.repeat(
        restarts, 1, 1, 1
    )  # (restarts * n, channels, side, side)
    optimizer = Adam([latents], lr=learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimizer.zero_grad()
        _errors(network(latents), targets).sum().backward()  # each image on its own
        optimizer.step()
    with torch.no_grad():
        made = network(latents)
        errors = _errors(made, targets).view(restarts, count)
    best = errors.argmin(dim=0) * count + torch.arange(count, device=images.device)
    return Inversion(latents.detach()[best], made[best], errors.min(dim=0).values)


def _errors(made: Tensor, targets: Tensor) -> Tensor:
    if made.shape != targets.shape:
        raise InputError(
            f"the generator makes images of shape {tuple(made.shape[1:])}, those to "
            f"invert have {tuple(targets.shape[1:])}: give it images of its own form"
        )
    return (made - targets).square().mean(dim=(1, 2, 3))
