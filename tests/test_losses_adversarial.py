"""Every loss against its paper's formula, written out, in float64."""

import itertools
import math

import pytest
import torch

from course_lib.errors import InputError
from course_lib.losses.adversarial import (
    discriminator_loss,
    flipped_discriminator_loss,
    generator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    minimax_generator_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    smoothed_discriminator_loss,
    wasserstein_critic_loss,
    wasserstein_generator_loss,
)

real = torch.tensor([-3.0, 0.0, 2.5], dtype=torch.float64)
fake = torch.tensor([1.5, -0.5], dtype=torch.float64)
paired = torch.tensor([1.5, -0.5, 0.25], dtype=torch.float64)  # fakes, one for each real


def gradients(loss, *inputs):
    """Return the gradient of a loss over each of its inputs."""
    leaves = [numbers.clone().requires_grad_() for numbers in inputs]
    return torch.autograd.grad(loss(*leaves), leaves)


def test_the_loss_is_the_papers_value_function_with_the_sign_turned():
    value = real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()
    assert torch.allclose(discriminator_loss(real, fake), -value, atol=1e-12)


def test_a_discriminator_that_knows_nothing_pays_two_log_two():
    zeros = torch.zeros(4, dtype=torch.float64)
    assert math.isclose(discriminator_loss(zeros, zeros).item(), 2 * math.log(2), rel_tol=1e-12)


def test_the_gradient_does_not_vanish_where_a_sigmoid_rounds_to_zero():
    logits = torch.tensor([-50.0], requires_grad=True)
    discriminator_loss(logits, torch.zeros(1)).backward()
    assert logits.grad.item() == -1.0


def test_the_gradient_is_minus_one_minus_d_on_real_and_d_on_fake():
    of_real, of_fake = gradients(discriminator_loss, real, fake)
    assert torch.allclose(of_real, -(1 - real.sigmoid()) / 3, atol=1e-12)
    assert torch.allclose(of_fake, fake.sigmoid() / 2, atol=1e-12)


def test_the_value_of_the_best_discriminator_is_two_jsd_minus_two_log_two():
    data, model = torch.tensor([4, 3, 1, 0]), torch.tensor([1, 2, 2, 3])  # counts of four outcomes
    p, q = data.double() / 8, model.double() / 8
    best = (p / q).log().clamp(-700, 700)  # D = p / (p + q) is the sigmoid of log p/q
    value = -discriminator_loss(best.repeat_interleave(data), best.repeat_interleave(model))
    mixed = (p + q) / 2
    jsd = (torch.xlogy(p, p / mixed).sum() + torch.xlogy(q, q / mixed).sum()) / 2
    assert abs(value - (2 * jsd - 2 * math.log(2))) < 1e-6
    nudged = best + 0.1
    assert -discriminator_loss(nudged.repeat_interleave(data), nudged.repeat_interleave(model)) < value


def test_the_generators_loss_is_the_non_saturating_one_of_the_paper():
    assert torch.allclose(generator_loss(fake), -fake.sigmoid().log().mean(), atol=1e-12)


def test_the_generators_gradient_is_minus_one_minus_d_also_where_it_is_found_out():
    logits = torch.tensor([-50.0, 0.0], requires_grad=True)
    generator_loss(logits).backward()
    assert logits.grad.tolist() == [-0.5, -0.25]  # a mean over two


def test_the_minimax_loss_is_the_papers_term_and_at_most_zero():
    assert torch.allclose(minimax_generator_loss(fake), (1 - fake.sigmoid()).log().mean(), atol=1e-12)
    assert minimax_generator_loss(fake) < 0 < generator_loss(fake)


def test_the_minimax_game_is_zero_sum_and_the_non_saturating_one_is_not():
    def of_fakes(logits):  # what the discriminator's loss owes to the fakes
        return discriminator_loss(real, logits)

    (discriminators,) = gradients(of_fakes, fake)
    assert torch.allclose(gradients(minimax_generator_loss, fake)[0], -discriminators, atol=1e-12)
    assert not torch.allclose(gradients(generator_loss, fake)[0], -discriminators, atol=1e-2)


def test_where_fakes_are_found_out_minimax_saturates_and_the_other_does_not():
    found_out = torch.tensor([-30.0], dtype=torch.float64)
    assert gradients(minimax_generator_loss, found_out)[0].item() == pytest.approx(-math.exp(-30), rel=1e-9)
    assert gradients(generator_loss, found_out)[0].item() == pytest.approx(-1, abs=1e-12)


def test_smoothing_is_cross_entropy_with_a_softer_target_for_real_images_alone():
    d = real.sigmoid()
    expected = -(0.9 * d.log() + 0.1 * (1 - d).log()).mean() - (1 - fake.sigmoid()).log().mean()
    assert torch.allclose(smoothed_discriminator_loss(real, fake), expected, atol=1e-12)
    of_real, of_fake = gradients(smoothed_discriminator_loss, real, fake)
    assert torch.allclose(of_real, (d - 0.9) / 3, atol=1e-12)
    assert torch.equal(of_fake, gradients(discriminator_loss, real, fake)[1])


def test_smoothing_with_target_one_is_no_smoothing():
    assert torch.equal(smoothed_discriminator_loss(real, fake, real_target=1), discriminator_loss(real, fake))


def test_under_smoothing_the_best_score_of_equal_densities_is_half_the_target():
    logit = torch.tensor([0.45], dtype=torch.float64).logit()
    slope = sum(gradients(smoothed_discriminator_loss, logit, logit))
    assert abs(slope.item()) < 1e-12


@pytest.mark.parametrize("target", [-0.1, 1.5, math.nan])
def test_a_target_that_is_no_probability_is_refused(target):
    with pytest.raises(InputError, match=f"real_target={target} .*0 to 1"):
        smoothed_discriminator_loss(real, fake, real_target=target)


def test_a_flipped_real_image_is_called_fake_and_fakes_stay_fake():
    flipped = torch.tensor([True, False, False])
    called_fake, called_real = -(1 - real.sigmoid()).log(), -real.sigmoid().log()
    expected = torch.stack([called_fake[0], called_real[1], called_real[2]]).mean()
    expected = expected - (1 - fake.sigmoid()).log().mean()
    assert torch.allclose(flipped_discriminator_loss(real, fake, flipped), expected, atol=1e-12)
    d, of_real = real.sigmoid(), gradients(lambda r, f: flipped_discriminator_loss(r, f, flipped), real, fake)[0]
    assert torch.allclose(of_real, (d - torch.tensor([0.0, 1.0, 1.0])) / 3, atol=1e-12)


def test_flipping_is_smoothing_in_expectation():
    p, expectation = 0.35, 0.0
    for flips in itertools.product([True, False], repeat=3):
        probability = p ** sum(flips) * (1 - p) ** (3 - sum(flips))
        expectation += probability * flipped_discriminator_loss(real, fake, torch.tensor(flips))
    assert torch.allclose(expectation, smoothed_discriminator_loss(real, fake, real_target=1 - p), atol=1e-12)


def test_least_squares_is_the_papers_formula_with_targets_zero_one_and_one():
    expected = 0.5 * ((real - 1) ** 2).mean() + 0.5 * ((fake - 0) ** 2).mean()
    assert torch.allclose(least_squares_discriminator_loss(real, fake), expected, atol=1e-12)
    assert torch.allclose(least_squares_generator_loss(fake), 0.5 * ((fake - 1) ** 2).mean(), atol=1e-12)


def test_the_gradient_of_least_squares_is_the_distance_to_the_target():
    of_real, of_fake = gradients(least_squares_discriminator_loss, real, fake)
    assert torch.allclose(of_real, (real - 1) / 3) and torch.allclose(of_fake, fake / 2)
    assert torch.allclose(gradients(least_squares_generator_loss, fake)[0], (fake - 1) / 2)


def test_hinge_is_the_papers_formula():
    zero = torch.zeros((), dtype=torch.float64)
    both_sides = 2 * fake - 1  # beyond the margin and before it, as the real ones are
    value = torch.minimum(zero, -1 + real).mean() + torch.minimum(zero, -1 - both_sides).mean()
    assert torch.allclose(hinge_discriminator_loss(real, both_sides), -value, atol=1e-12)
    assert torch.allclose(hinge_generator_loss(fake), -fake.mean(), atol=1e-12)


def test_the_hinge_has_no_gradient_beyond_its_margin_but_the_generators_has():
    of_real, of_fake = gradients(hinge_discriminator_loss, real, torch.tensor([1.5, -0.5, -1.5]))
    assert torch.allclose(of_real, torch.tensor([-1, -1, 0], dtype=torch.float64) / 3)
    assert torch.allclose(of_fake, torch.tensor([1.0, 1, 0]) / 3)
    assert torch.allclose(gradients(hinge_generator_loss, real)[0], torch.tensor(-1 / 3, dtype=torch.float64))


def test_wasserstein_is_a_difference_of_mean_scores():
    assert wasserstein_critic_loss(real, fake).item() == pytest.approx(0.5 - (-0.5 / 3), abs=1e-12)
    assert wasserstein_generator_loss(fake).item() == pytest.approx(-0.5, abs=1e-12)


def test_the_gradient_of_wasserstein_is_the_same_for_every_score():
    of_real, of_fake = gradients(wasserstein_critic_loss, real, fake)
    assert torch.allclose(of_real, torch.full((3,), -1 / 3, dtype=torch.float64))
    assert torch.allclose(of_fake, torch.full((2,), 1 / 2, dtype=torch.float64))
    assert torch.allclose(gradients(wasserstein_generator_loss, fake)[0], -of_fake)


def test_the_relativistic_loss_is_the_papers_formula_over_pairs():
    says_real_first = (real - paired).sigmoid()
    assert torch.allclose(relativistic_discriminator_loss(real, paired), -says_real_first.log().mean(), atol=1e-12)
    expected = -(paired - real).sigmoid().log().mean()
    assert torch.allclose(relativistic_generator_loss(real, paired), expected, atol=1e-12)


def test_the_relativistic_gradient_is_the_doubt_and_opposite_within_a_pair():
    doubt = (1 - (real - paired).sigmoid()) / 3
    of_real, of_fake = gradients(relativistic_discriminator_loss, real, paired)
    assert torch.allclose(of_real, -doubt, atol=1e-12) and torch.allclose(of_fake, doubt, atol=1e-12)
    assert torch.allclose(gradients(relativistic_generator_loss, real, paired)[1], doubt - 1 / 3, atol=1e-12)


def test_the_relativistic_loss_pairs_images_and_not_all_with_all():
    other_pairs = relativistic_discriminator_loss(real, paired.roll(1))
    assert not torch.allclose(relativistic_discriminator_loss(real, paired), other_pairs, atol=1e-2)


@pytest.mark.parametrize("size", [100.0, -100.0])
def test_relativistic_logits_that_are_huge_leave_a_gradient_of_one_or_none(size):
    of_real, _ = gradients(relativistic_discriminator_loss, torch.tensor([size]), torch.zeros(1))
    assert of_real.item() == pytest.approx(-1.0 if size < 0 else 0.0)


COMPARING = [wasserstein_critic_loss, relativistic_discriminator_loss, relativistic_generator_loss]
ABSOLUTE = [discriminator_loss, smoothed_discriminator_loss, least_squares_discriminator_loss, hinge_discriminator_loss]


@pytest.mark.parametrize("loss", COMPARING)
def test_a_number_added_to_all_scores_does_not_change_losses_that_compare(loss):
    assert torch.allclose(loss(real + 7, paired + 7), loss(real, paired), atol=1e-12)


@pytest.mark.parametrize("loss", ABSOLUTE)
def test_a_number_added_to_all_scores_changes_losses_that_do_not(loss):
    assert not torch.allclose(loss(real + 7, paired + 7), loss(real, paired), atol=1e-2)


@pytest.mark.parametrize("loss", [*COMPARING, *ABSOLUTE])
def test_a_batch_said_twice_has_the_same_loss(loss):
    assert torch.allclose(loss(real.repeat(2), paired.repeat(2)), loss(real, paired), atol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        generator_loss,
        minimax_generator_loss,
        least_squares_generator_loss,
        hinge_generator_loss,
        wasserstein_generator_loss,
    ],
)
def test_a_batch_of_fakes_said_twice_has_the_same_loss_and_a_higher_score_a_lower_one(loss):
    assert torch.allclose(loss(fake.repeat(2)), loss(fake), atol=1e-12)
    assert loss(real - 4) > loss(real - 3)
