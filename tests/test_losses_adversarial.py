import math

import torch

from course_lib.losses.adversarial import discriminator_loss, generator_loss

real = torch.tensor([-3.0, 0.0, 2.5], dtype=torch.float64)
fake = torch.tensor([1.5, -0.5], dtype=torch.float64)


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
    a, b = real.clone().requires_grad_(), fake.clone().requires_grad_()
    discriminator_loss(a, b).backward()
    assert torch.allclose(a.grad, -(1 - real.sigmoid()) / 3, atol=1e-12)
    assert torch.allclose(b.grad, fake.sigmoid() / 2, atol=1e-12)


def test_the_generators_loss_is_the_non_saturating_one_of_the_paper():
    assert torch.allclose(generator_loss(fake), -fake.sigmoid().log().mean(), atol=1e-12)


def test_the_generators_gradient_is_minus_one_minus_d_also_where_it_is_found_out():
    logits = torch.tensor([-50.0, 0.0], requires_grad=True)
    generator_loss(logits).backward()
    assert logits.grad.tolist() == [-0.5, -0.25]  # a mean over two
