"""How well each player of a GAN does, as numbers from 0 to 1."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Scores(NamedTuple):
    """The scores of both players, from 0 to 1, the best against this opponent."""

    generator: Float[Tensor, "*runs"]
    discriminator: Float[Tensor, "*runs"]


def player_scores(
    real_logits: Float[Tensor, "*runs real"],
    fake_logits: Float[Tensor, "*runs fake"],
) -> Scores:
    """Return how real the discriminator finds the fakes, and how sure it is of the
    truth, both as means over images.

    The generator's score is mean D(G(z)); the discriminator's is
    (mean D(x) + mean(1 - D(G(z)))) / 2. Where the discriminator can only guess, both
    are 1/2. The logits are those of "real" in a minimax or non-saturating game,
    where D = sigmoid(logit) is a probability. Other games' numbers give no scores.

    Source: MathWorks, Train Generative Adversarial Network (GAN).
    """
    real = real_logits.sigmoid().mean(dim=-1)
    fake = fake_logits.sigmoid().mean(dim=-1)
    return Scores(generator=fake, discriminator=(real + 1 - fake) / 2)
