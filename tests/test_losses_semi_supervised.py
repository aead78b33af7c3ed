"""Everything against the softmax over K + 1 classes, written out, in float64."""

import pytest
import torch
from torch.nn.functional import softmax

from course_lib.losses.semi_supervised import feature_matching_loss, real_logit, semi_supervised_discriminator_loss

CLASSES = 4
generator = torch.Generator().manual_seed(0)
labelled, unlabelled, fake = (3 * torch.randn(n, CLASSES, dtype=torch.float64, generator=generator) for n in (5, 7, 6))
labels = torch.tensor([0, 3, 1, 1, 2])


def with_fake_class(logits):
    """Append the logit of class K + 1, which is 0."""
    return torch.cat([logits, torch.zeros(len(logits), 1, dtype=logits.dtype)], dim=1)


def test_one_minus_the_probability_of_fake_is_the_sigmoid_of_the_real_logit():
    p_fake = softmax(with_fake_class(unlabelled), dim=1)[:, -1]
    assert torch.allclose(real_logit(unlabelled).sigmoid(), 1 - p_fake, atol=1e-12)
    z = unlabelled.exp().sum(dim=1)
    assert torch.allclose(real_logit(unlabelled).sigmoid(), z / (z + 1), atol=1e-12)


def test_the_loss_is_that_of_the_softmax_over_k_plus_one_classes():
    loss = semi_supervised_discriminator_loss(labelled, labels, unlabelled, fake)
    p_class = softmax(with_fake_class(labelled), dim=1)
    given_real = p_class[torch.arange(5), labels] / (1 - p_class[:, -1])  # p(y | x, y <= K)
    assert torch.allclose(loss.classes, -given_real.log().mean(), atol=1e-12)
    real_term = -(1 - softmax(with_fake_class(unlabelled), dim=1)[:, -1]).log().mean()
    fake_term = -softmax(with_fake_class(fake), dim=1)[:, -1].log().mean()
    assert torch.allclose(loss.real_or_fake, (real_term + fake_term) / 2, atol=1e-12)


def test_the_gradient_on_unlabelled_and_fake_logits_is_pinned():
    u, f = unlabelled.clone().requires_grad_(), fake.clone().requires_grad_()
    sum(semi_supervised_discriminator_loss(labelled, labels, u, f)).backward()
    p_u, p_f = softmax(with_fake_class(unlabelled), dim=1), softmax(with_fake_class(fake), dim=1)
    # d/dlogit_k of -log(1 - p_fake) is p_k - p_k / (1 - p_fake); of -log p_fake it is p_k.
    assert torch.allclose(u.grad, (p_u - p_u / (1 - p_u[:, -1:]))[:, :-1] / 14, atol=1e-12)
    assert torch.allclose(f.grad, p_f[:, :-1] / 12, atol=1e-12)


def test_the_gradient_on_labelled_logits_is_that_of_cross_entropy():
    x = labelled.clone().requires_grad_()
    sum(semi_supervised_discriminator_loss(x, labels, unlabelled, fake)).backward()
    expected = softmax(labelled, dim=1)
    expected[torch.arange(5), labels] -= 1
    assert torch.allclose(x.grad, expected / 5, atol=1e-12)


def test_adding_a_number_to_all_class_logits_changes_real_or_fake_but_not_the_class():
    base = semi_supervised_discriminator_loss(labelled, labels, unlabelled, fake)
    moved = semi_supervised_discriminator_loss(labelled + 5, labels, unlabelled + 5, fake + 5)
    assert torch.allclose(base.classes, moved.classes, atol=1e-12)
    assert not torch.allclose(base.real_or_fake, moved.real_or_fake)


@pytest.mark.parametrize("size", [100.0, -100.0])
def test_huge_logits_stay_finite_with_a_useful_gradient(size):
    x = torch.full((3, CLASSES), size, requires_grad=True)
    loss = semi_supervised_discriminator_loss(x, labels[:3], x, x)
    sum(loss).backward()
    assert all(term.isfinite() for term in loss) and x.grad.isfinite().all() and x.grad.abs().max() > 0.01


def test_no_labelled_image_is_an_error_and_not_a_number_that_is_none():
    with pytest.raises(ValueError, match="found no labelled image"):
        semi_supervised_discriminator_loss(labelled[:0], labels[:0], unlabelled, fake)


def test_feature_matching_is_the_mean_absolute_difference_of_the_means():
    real = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64)
    made = torch.tensor([[0.0, 0.0], [2.0, 9.0]], dtype=torch.float64, requires_grad=True)
    loss = feature_matching_loss(real, made)  # means (2, 4) and (1, 4.5)
    assert loss.item() == 0.75
    loss.backward()
    assert torch.equal(made.grad, torch.tensor([[-0.25, 0.25], [-0.25, 0.25]], dtype=torch.float64))


def test_feature_matching_does_not_look_at_the_order_of_images():
    a, b = torch.rand(6, 3), torch.rand(4, 3)
    assert torch.allclose(feature_matching_loss(a, b), feature_matching_loss(a.flip(0), b.flip(0)))
