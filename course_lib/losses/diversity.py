"""What keeps a conditional generator from ignoring its latent vector."""

from jaxtyping import Float
from torch import Tensor


def mode_seeking_loss(
    images: Float[Tensor, "batch channels height width"],
    others: Float[Tensor, "batch channels height width"],
    latent: Float[Tensor, "batch latent_dim"],
    other_latent: Float[Tensor, "batch latent_dim"],
) -> Float[Tensor, ""]:
    """Score how little images differ that were made from other latent vectors under
    the same conditions; at most 0, and the smaller, the more they differ.

    It is minus the mean over the pairs of |image - other| / |latent - other latent|,
    both mean absolute differences. Its scale is bounded because pixels are.

    Source: Mao et al. (2019), Mode seeking GANs, equation 3. They maximise this
    ratio; their code minimises its inverse instead.
    """
    images_apart = (images - others).abs().mean((1, 2, 3))
    latents_apart = (latent - other_latent).abs().mean(1)
    return -(images_apart / latents_apart).mean()
