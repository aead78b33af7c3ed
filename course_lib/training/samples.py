"""Watch a generator learn: the same latents, drawn again and again while it trains."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


def fixed_latents(count: int, latent_dim: int, seed: int) -> Float[Tensor, "count latent_dim"]:
    """Return standard normal latents that depend on the seed alone, and take nothing from torch's global generator."""
    return torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))


def drawing(generator: nn.Module, *inputs: Shaped[Tensor, "count *given"]) -> Callable[[], Tensor]:
    """Return a function that draws the images of these inputs as the generator would in use, and leaves no trace.

    It works in evaluation mode, without gradients, in float32, and returns the images, (count, channels, side, side)
    in [-1, 1], on the CPU; the mode of each layer is put back afterwards.

    Args:
        generator: the bare network, trained or averaged; not what Accelerate returns for it, which several processes
            would have to call together.
        inputs: what it draws from: latents, (count, latent_dim), and a condition for each where it takes one.
    """

    def draw() -> Tensor:
        modes = [(layer, layer.training) for layer in generator.modules()]
        generator.eval()
        try:
            with torch.no_grad():
                # The class's own forward: Accelerate gives the object another one, of mixed precision.
                device = next(generator.parameters()).device
                return type(generator).forward(generator, *(one.to(device) for one in inputs)).cpu()
        finally:
            for layer, training in modes:
                layer.training = training

    return draw
