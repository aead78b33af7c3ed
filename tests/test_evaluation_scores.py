import pytest
import torch

from course_lib.errors import InputError
from course_lib.evaluation.detective import fresh_detective_accuracy
from course_lib.evaluation.scores import player_scores


def test_scores_are_means_of_probabilities_and_not_probabilities_of_means():
    real, fake = torch.tensor([0.9, 0.5]).logit(), torch.tensor([0.2, 0.3, 0.1]).logit()
    scores = player_scores(real, fake)
    assert scores.generator.item() == pytest.approx(0.2)
    assert scores.discriminator.item() == pytest.approx((0.7 + 0.8) / 2)


def test_a_discriminator_that_guesses_gives_one_half_to_both():
    assert player_scores(torch.zeros(3), torch.zeros(5)) == (0.5, 0.5)


def test_each_run_has_its_own_scores():
    real, fake = torch.randn(4, 6), torch.randn(4, 3)
    together = player_scores(real, fake)
    alone = [player_scores(*pair) for pair in zip(real, fake, strict=True)]
    assert torch.allclose(together.generator, torch.stack([scores.generator for scores in alone]))
    assert torch.allclose(together.discriminator, torch.stack([scores.discriminator for scores in alone]))


def test_a_fresh_detective_guesses_where_both_are_the_same_and_knows_where_they_differ():
    torch.manual_seed(0)
    real = torch.randn(1000, 2)
    assert fresh_detective_accuracy(real, torch.randn(1000, 2)) == pytest.approx(0.5, abs=0.05)
    assert fresh_detective_accuracy(real, torch.randn(1000, 2) + 5) > 0.98
    # Two Gaussians one apart: the best border is halfway, and is right with probability Phi(1/2).
    assert fresh_detective_accuracy(real, torch.randn(1000, 2) + torch.tensor([1.0, 0.0])) == pytest.approx(
        0.69, abs=0.05
    )


def test_a_fresh_detective_knows_nothing_of_what_it_is_asked():
    one_by_one = torch.arange(400.0)[
        :, None
    ]  # each value tells one thing: a judge who had seen it would always be right
    assert fresh_detective_accuracy(one_by_one[::2], one_by_one[1::2]) < 0.6


def test_what_a_fresh_detective_cannot_judge_is_refused():
    with pytest.raises(InputError, match="found 3 real and 4 fake"):
        fresh_detective_accuracy(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(InputError, match="not finite"):
        fresh_detective_accuracy(torch.zeros(3, 2), torch.full((3, 2), torch.nan))
