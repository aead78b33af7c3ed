"""What a variational autoencoder minimises, in nats for each image."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class NegativeELBO(NamedTuple):
    """The negative evidence lower bound of each image, in nats, and its two parts.

    total_nats = reconstruction_nats + beta * kl_nats.
    """

    total_nats: Float[Tensor, " batch"]
    reconstruction_nats: Float[Tensor, " batch"]
    kl_nats: Float[Tensor, " batch"]


def bernoulli_negative_log_likelihood(
    logits: Float[Tensor, "batch *shape"], images: Float[Tensor, "batch *shape"]
) -> Float[Tensor, " batch"]:
    """Return -log p(image | latent), where each pixel is a coin of its own: the sum
    over the pixels of softplus(logit) - white * logit, with white = (pixel + 1) / 2.

    Args:
        logits: of the probability that a pixel is white.
        images: pixels -1 (black) or 1 (white). One in between counts as so much of
            both. The result is then no likelihood, and never 0.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix C.1.
    """
    white = (images + 1) / 2
    nats = binary_cross_entropy_with_logits(logits, white, reduction="none")
    return nats.flatten(start_dim=1).sum(dim=1)  # (batch, pixels) -> (batch,)


def gaussian_kl(
    mean: Float[Tensor, "batch latent_dim"],
    log_variance: Float[Tensor, "batch latent_dim"],
) -> Float[Tensor, " batch"]:
    """Return the Kullback-Leibler divergence of N(mean, exp(log_variance)) from
    N(0, I):

        1/2 sum (mean^2 + variance - 1 - log variance),

    0 where the two agree.

    Source: Kingma and Welling (2014), appendix B.
    """
    # expm1(v) - v keeps its digits near v = 0, where exp(v) - 1 - v loses them.
    excess = log_variance.expm1() - log_variance
    return (mean.square() + excess).sum(dim=1) / 2


def negative_elbo(
    logits: Float[Tensor, "batch *shape"],
    images: Float[Tensor, "batch *shape"],
    mean: Float[Tensor, "batch latent_dim"],
    log_variance: Float[Tensor, "batch latent_dim"],
    *,
    beta: float = 1.0,
) -> NegativeELBO:
    """Return the negative evidence lower bound of each image.

    With one latent vector drawn for an image it is an unbiased estimate of the
    bound, which for beta = 1 is at least -log p(image).

    Args:
        logits: of pixels, decoded from a latent vector that was drawn from the
            Gaussian below.
        mean, log_variance: of q(latent | image).
        beta: weight of the divergence. Above 1 the latent vectors are closer to
            N(0, I), and the images are repeated less well.

    Source: Kingma and Welling (2014), section 3, equation 10. beta: Higgins et al.
    (2017), beta-VAE, section 2.
    """
    reconstruction = bernoulli_negative_log_likelihood(logits, images)
    kl = gaussian_kl(mean, log_variance)
    return NegativeELBO(reconstruction + beta * kl, reconstruction, kl)
