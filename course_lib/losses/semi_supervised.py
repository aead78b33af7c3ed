"""What a semi-supervised GAN's players minimise: K classes, and one for "fake"."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss

from course_lib.losses.adversarial import discriminator_loss


class SemiSupervisedLoss(NamedTuple):
    """What a semi-supervised discriminator must get right; it minimises the sum."""

    classes: Float[Tensor, ""]
    real_or_fake: Float[Tensor, ""]


def real_logit(
    class_logits: Float[Tensor, "batch classes"],
) -> Float[Tensor, " batch"]:
    """Return the logit of "real": the log-sum-exp of the K class logits.

    A softmax over K+1 classes does not change when the same number is added to all
    logits, so the last one ("fake") may be fixed at 0. Then
    D(x) = 1 - p(fake | x) = Z / (Z + 1) with Z = sum_k exp(logit_k), which is the
    sigmoid of log Z.

    Source: Salimans et al. (2016), section 5.
    """
    return class_logits.logsumexp(dim=1)


def semi_supervised_discriminator_loss(
    labelled_logits: Float[Tensor, "labelled classes"],
    labels: Int[Tensor, " labelled"],
    unlabelled_logits: Float[Tensor, "unlabelled classes"],
    fake_logits: Float[Tensor, "fake classes"],
) -> SemiSupervisedLoss:
    """Score a K-class discriminator on class and on real versus fake, in nats.

    Each term is a mean over its own batch. Give logits, never probabilities:
    a softmax before this loss would be taken twice.

    Raises:
        ValueError: if no image is labelled; the class term would be NaN.

    Source: Salimans et al. (2016), section 5. We halve the two real-versus-fake
    terms, as the authors' code does; the paper does not.
    """
    if len(labels) == 0:
        raise ValueError("found no labelled image: the class term needs one or more")
    real, fake = real_logit(unlabelled_logits), real_logit(fake_logits)
    return SemiSupervisedLoss(
        classes=cross_entropy(labelled_logits, labels),
        real_or_fake=discriminator_loss(real, fake) / 2,
    )


def feature_matching_loss(
    real_features: Float[Tensor, "real features"],
    fake_features: Float[Tensor, "fake features"],
) -> Float[Tensor, ""]:
    """Measure how far the mean features of generated images are from those of real
    ones: the generator's loss.

    The mean over features of the absolute difference. No gradient reaches the
    discriminator through the real batch when the caller detaches `real_features`.

    Source: Salimans et al. (2016), section 3.1, which takes the squared Euclidean
    distance of the two means. We take the mean absolute difference, as the authors'
    code does for CIFAR-10 and SVHN (for MNIST it takes the mean square).
    """
    return l1_loss(fake_features.mean(dim=0), real_features.mean(dim=0))
