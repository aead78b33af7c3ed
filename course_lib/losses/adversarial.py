"""What the two players of a GAN minimise.

Each loss takes one number per image and returns a mean over the batch. A logit is
that of "real": D(x) = sigmoid(logit), and its loss is in nats. A score is no such
logit, and no sigmoid makes a probability of it. Penalties on the slope of the
discriminator are in `course_lib.losses.gradient_penalty`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from course_lib.errors import InputError


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


def minimax_generator_loss(fake_logits: Float[Tensor, " fake"]) -> Float[Tensor, ""]:
    """Score a generator by the discriminator's value function, in nats; at most 0.

    It is mean log(1 - D(G(z))), the saturating loss. Its gradient over a logit is
    -D(G(z)): none is left where the discriminator is sure of "fake".

    Source: Goodfellow et al. (2014), equation 1, the term in which G occurs.
    """
    return -softplus(fake_logits).mean()


def smoothed_discriminator_loss(
    real_logits: Float[Tensor, " real"],
    fake_logits: Float[Tensor, " fake"],
    *,
    real_target: float = 0.9,
) -> Float[Tensor, ""]:
    """Score a discriminator that is to call real images real with a probability of
    `real_target` only, in nats.

    One-sided label smoothing: the target of fakes stays 0. The best discriminator is
    real_target * p_data / (p_data + p_g), 0.45 where the two densities are equal.

    Raises:
        InputError: `real_target` is no probability.

    Source: Salimans et al. (2016), section 3.4.
    """
    if not 0 <= real_target <= 1:
        raise InputError(f"real_target={real_target} is no probability: use 0 to 1")
    said_real, said_fake = softplus(-real_logits), softplus(real_logits)
    of_real = real_target * said_real + (1 - real_target) * said_fake
    return of_real.mean() + softplus(fake_logits).mean()


def flipped_discriminator_loss(
    real_logits: Float[Tensor, " real"],
    fake_logits: Float[Tensor, " fake"],
    flipped: Bool[Tensor, " real"],
) -> Float[Tensor, ""]:
    """Score a discriminator that is told "fake" of some real images, in nats.

    `flipped` says of which; draw it anew for every update, for example by
    `torch.rand_like(real_logits) < 0.35`. Labels of fakes are not flipped. With the
    probability p of a flip, the expectation is that of smoothing with the target
    1 - p; the choice adds variance.

    Source: MathWorks, Train Generative Adversarial Network (GAN), `flipProb`.
    """
    towards_label = real_logits.where(~flipped, -real_logits)
    return softplus(-towards_label).mean() + softplus(fake_logits).mean()


def least_squares_discriminator_loss(
    real_scores: Float[Tensor, " real"], fake_scores: Float[Tensor, " fake"]
) -> Float[Tensor, ""]:
    """Measure how far scores are from 1 for real and from 0 for fake images.

    Half the mean square on each side; at least 0.

    Source: Mao et al. (2017), equation 2, with a = 0 (fake) and b = 1 (real).
    """
    return ((real_scores - 1).square().mean() + fake_scores.square().mean()) / 2


def least_squares_generator_loss(
    fake_scores: Float[Tensor, " fake"],
) -> Float[Tensor, ""]:
    """Measure how far the scores of fakes are from 1: half the mean square.

    Source: Mao et al. (2017), equation 2, with c = b = 1.
    """
    return (fake_scores - 1).square().mean() / 2


def hinge_discriminator_loss(
    real_scores: Float[Tensor, " real"], fake_scores: Float[Tensor, " fake"]
) -> Float[Tensor, ""]:
    """Measure how much real scores lack to 1, and how far fake ones are above -1.

    At least 0. An image on the right side of its margin has no gradient.

    Source: Lim and Ye (2017), Geometric GAN; written as in Miyato et al. (2018),
    section 4, with the sign turned.
    """
    return relu(1 - real_scores).mean() + relu(1 + fake_scores).mean()


def hinge_generator_loss(fake_scores: Float[Tensor, " fake"]) -> Float[Tensor, ""]:
    """Return minus the mean score of fakes, without a margin.

    Source: as for the discriminator.
    """
    return -fake_scores.mean()


def wasserstein_critic_loss(
    real_scores: Float[Tensor, " real"], fake_scores: Float[Tensor, " fake"]
) -> Float[Tensor, ""]:
    """Return the mean score of fakes minus that of real images.

    Of all critics with slope 1 or less, the best one reaches minus the Wasserstein-1
    distance. Nothing here limits the slope: add a gradient penalty.

    Source: Arjovsky et al. (2017), Wasserstein GAN, section 3, with the sign turned.
    """
    return fake_scores.mean() - real_scores.mean()


def wasserstein_generator_loss(
    fake_scores: Float[Tensor, " fake"],
) -> Float[Tensor, ""]:
    """Return minus the mean score of fakes.

    Source: Arjovsky et al. (2017), Wasserstein GAN, section 3.
    """
    return -fake_scores.mean()


def relativistic_discriminator_loss(
    real_logits: Float[Tensor, " pairs"], fake_logits: Float[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """Score how well a discriminator says which image of a pair is the real one, in
    nats.

    The logit of "the first is real" is the difference of the two. Image i of one
    batch is paired with image i of the other. R3GAN adds the penalties R1 and R2.

    Source: Jolicoeur-Martineau (2019), The relativistic discriminator, RSGAN; R3GAN
    is Huang et al. (2024), section 2.
    """
    return softplus(fake_logits - real_logits).mean()


def relativistic_generator_loss(
    real_logits: Float[Tensor, " pairs"], fake_logits: Float[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """Score a generator that wants the fake of each pair to look the more real, in
    nats.

    Source: as for the discriminator, with the two batches exchanged.
    """
    return softplus(real_logits - fake_logits).mean()


@dataclass(frozen=True)
class Game:
    """What the two players of a GAN minimise, and what the numbers are.

    Args:
        discriminator: takes logits of real images, then those of fakes.
        generator: takes logits of fakes; with `paired`, those of real images first.
        paired: each fake is compared with a real image.
        probabilities: whether the sigmoid of a logit is a probability of "real".
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[..., Tensor]
    paired: bool = False
    probabilities: bool = True


NON_SATURATING = Game(discriminator_loss, generator_loss)
GAMES = {
    "minimax": Game(discriminator_loss, minimax_generator_loss),
    "non_saturating": NON_SATURATING,
    "least_squares": Game(
        least_squares_discriminator_loss,
        least_squares_generator_loss,
        probabilities=False,
    ),
    "hinge": Game(
        hinge_discriminator_loss, hinge_generator_loss, probabilities=False
    ),
    "wasserstein": Game(
        wasserstein_critic_loss, wasserstein_generator_loss, probabilities=False
    ),
    "relativistic": Game(
        relativistic_discriminator_loss,
        relativistic_generator_loss,
        paired=True,
        probabilities=False,
    ),
}
