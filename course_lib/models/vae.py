"""A variational autoencoder: images as distributions of latent vectors, and back."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.models.autoencoder import Decoder, Encoder


class VAEOutput(NamedTuple):
    """Logits of the pixels, and the Gaussian that the latent vector came from."""

    logits: Float[Tensor, "batch channels side side"]
    mean: Float[Tensor, "batch latent_dim"]
    log_variance: Float[Tensor, "batch latent_dim"]


class VAE(nn.Module):
    """Encode images with pixels in [-1, 1] as Gaussians, draw a latent vector from
    each, and decode it into logits: sigmoid(logit) is the probability of white.

    The encoder says the mean and the logarithm of the variance of every latent
    number; the variances need no bound that way. Both networks are those of the
    autoencoder, but the encoder has twice as many outputs and does not pool.

    Args:
        side_px: side of the square images, at least 8.
        latent_dim: numbers in a latent vector.
        width: channels of the encoder's first convolution.

    Raises:
        InputError: a size cannot be.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes, section 3 and
    appendix C; their networks are dense.
    """

    def __init__(
        self, *, channels: int, side_px: int, latent_dim: int, width: int = 16
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        sizes = {"channels": channels, "side_px": side_px, "width": width}
        self.encoder = Encoder(latent_dim=2 * latent_dim, pooling=False, **sizes)
        self.decoder = Decoder(latent_dim=latent_dim, **sizes)

    def encode(
        self, images: Float[Tensor, "batch channels side side"]
    ) -> tuple[Float[Tensor, "batch latent_dim"], Float[Tensor, "batch latent_dim"]]:
        """Return the mean and the log-variance of q(z | image)."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance

    def forward(
        self,
        images: Float[Tensor, "batch channels side side"],
        noise: Float[Tensor, "batch latent_dim"],
    ) -> VAEOutput:
        mean, log_variance = self.encode(images)
        latent = reparameterise(mean, log_variance, noise)
        return VAEOutput(self.decoder(latent), mean, log_variance)


def reparameterise(
    mean: Float[Tensor, "*shape"],
    log_variance: Float[Tensor, "*shape"],
    noise: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """Turn noise from N(0, I) into a draw from N(mean, exp(log_variance)).

    mean + exp(log_variance / 2) * noise: a function of mean and variance that has
    derivatives, which drawing has not.

    Source: Kingma and Welling (2014), section 2.4.
    """
    return mean + torch.exp(log_variance / 2) * noise
