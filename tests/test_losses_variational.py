import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from course_lib.losses.variational import bernoulli_negative_log_likelihood, gaussian_kl, negative_elbo


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    images = torch.randint(0, 2, logits.shape, generator=generator).double() * 2 - 1
    mean, log_variance = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    return logits, images, mean, log_variance


def test_the_likelihood_is_that_of_torchs_bernoulli_summed_over_the_pixels_of_each_picture(given):
    logits, images, _, _ = given
    expected = -Bernoulli(logits=logits).log_prob((images + 1) / 2).sum((1, 2, 3))
    torch.testing.assert_close(bernoulli_negative_log_likelihood(logits, images), expected)


def test_the_divergence_is_that_of_torchs_normals_summed_over_the_latent_numbers(given):
    _, _, mean, log_variance = given
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), prior).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_the_divergence_in_closed_form_equals_monte_carlo_within_four_standard_errors():
    posterior, prior = Normal(torch.tensor([0.7, -2.0]), torch.tensor([0.3, 1.5])), Normal(0.0, 1.0)
    torch.manual_seed(0)
    drawn = posterior.sample((100_000,))
    ratios = (posterior.log_prob(drawn) - prior.log_prob(drawn)).sum(1)
    found = gaussian_kl(posterior.loc[None], 2 * posterior.scale.log()[None]).item()
    assert abs(ratios.mean().item() - found) < 4 * ratios.std().item() / math.sqrt(len(ratios))


def test_the_divergence_of_the_prior_from_itself_is_zero_and_keeps_its_digits_close_by():
    assert gaussian_kl(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0
    close = gaussian_kl(torch.zeros(1, 1), torch.full((1, 1), 1e-2)).item()
    assert close == pytest.approx((1e-4 / 2 + 1e-6 / 6) / 2, rel=1e-3)


def test_extreme_logits_give_no_infinity_and_still_a_slope():
    logits = torch.full((1, 1), 200.0, requires_grad=True)
    nats = bernoulli_negative_log_likelihood(logits, -torch.ones(1, 1))
    assert nats.item() == 200
    nats.backward()
    assert logits.grad.item() == 1


def test_the_bound_is_the_sum_of_its_parts_with_the_weight_beta(given):
    logits, images, mean, log_variance = given
    for beta in (0.0, 1.0, 4.0):
        found = negative_elbo(logits, images, mean, log_variance, beta=beta)
        assert torch.equal(found.reconstruction_nats, bernoulli_negative_log_likelihood(logits, images))
        assert torch.equal(found.kl_nats, gaussian_kl(mean, log_variance))
        torch.testing.assert_close(found.total_nats, found.reconstruction_nats + beta * found.kl_nats)


def test_the_bound_lies_above_the_negative_log_likelihood_and_meets_it_at_the_true_posterior():
    """One latent bit of a Gaussian, p(white | z) = sigmoid(3 z): -log p(white) by integration on a grid."""
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    weights = Normal(0.0, 1.0).log_prob(grid).exp() * (grid[1] - grid[0])
    exact = -torch.log((weights * torch.sigmoid(3 * grid)).sum()).item()

    def bound(mean: float, std: float) -> float:
        shares = Normal(mean, std).log_prob(grid).exp() * (grid[1] - grid[0])
        images = torch.ones(len(grid), 1, dtype=torch.float64)
        reconstruction = (shares * bernoulli_negative_log_likelihood(3 * grid[:, None], images)).sum().item()
        numbers = torch.tensor([[mean, 2 * math.log(std)]], dtype=torch.float64)
        return reconstruction + gaussian_kl(numbers[:, :1], numbers[:, 1:]).item()

    bounds = [bound(mean / 10, std / 10) for mean in range(-5, 16) for std in range(3, 15)]
    assert exact < min(bounds) < exact + 0.05 and bound(0.0, 1.0) > exact + 0.2


def test_the_slope_of_the_loss_is_pinned():
    mean = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    log_variance = torch.tensor([[math.log(4)]], dtype=torch.float64, requires_grad=True)
    gaussian_kl(mean, log_variance).sum().backward()
    assert mean.grad.item() == pytest.approx(0.5) and log_variance.grad.item() == pytest.approx(1.5)
