"""What the two players of a GAN minimise."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(
    real_logits: Float[Tensor, " real"], fake_logits: Float[Tensor, " fake"]
) -> Float[Tensor, ""]:
    """Score how well a discriminator tells a real batch from a fake one, in nats.

    The logits are those of "real": D(x) = sigmoid(logit). Since
    -log D = softplus(-logit) and -log(1 - D) = softplus(logit), this is
    -mean log D(x) - mean log(1 - D(G(z))), exact also where a sigmoid would round
    to 0 or 1. Each mean is over its own batch.

    Source: Goodfellow et al. (2014), equation 1; its value function with the sign
    turned.
    """
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def generator_loss(fake_logits: Float[Tensor, " fake"]) -> Float[Tensor, ""]:
    """Score a generator that wants its images to be taken for real, in nats.

    It is -mean log D(G(z)), the non-saturating loss: its gradient over the logit
    stays near -1 where the discriminator is sure of "fake". That of the minimax
    loss, mean log(1 - D(G(z))), dies there.

    Source: Goodfellow et al. (2014), section 3.
    """
    return softplus(-fake_logits).mean()
