import math

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from course_lib.errors import InputError
from course_lib.evaluation.frechet import frechet_distance


def with_moments(mean, covariance, count, seed=0):
    """Return a sample that has exactly these moments: noise, whitened and stretched."""
    noise = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise -= noise.mean(dim=0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T.cov())).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def rotation(dimensions, seed=0):
    return torch.linalg.qr(
        torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ).Q


def test_of_gaussians_along_the_same_axes_it_is_that_of_means_and_standard_deviations():
    axes = rotation(3)
    first, second = torch.tensor([1.0, 4.0, 0.25]).double(), torch.tensor([9.0, 1.0, 0.25]).double()
    mean, other = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 0.0, 3.0]).double()
    real = with_moments(mean, axes @ first.diag() @ axes.T, 50)
    fake = with_moments(other, axes @ second.diag() @ axes.T, 70, seed=1)
    # |m1 - m2|^2 = 1 + 4, and the standard deviations differ by 2, 1 and 0
    assert frechet_distance(real, fake) == pytest.approx(5 + 4 + 1, abs=1e-9)


def test_of_covariances_that_do_not_commute_the_root_has_the_closed_form_of_two_dimensions():
    first = torch.tensor([[2.0, 0.8], [0.8, 1.0]]).double()
    second = torch.tensor([[1.0, -0.9], [-0.9, 3.0]]).double()
    zero = torch.zeros(2).double()
    found = frechet_distance(with_moments(zero, first, 20), with_moments(zero, second, 30, seed=1))
    product = first @ second
    assert (product - second @ first).abs().max() > 0.5
    # Of a 2 x 2 matrix with positive eigenvalues, trace(M^(1/2)) = (trace M + 2 det(M)^(1/2))^(1/2).
    root = math.sqrt(product.trace() + 2 * math.sqrt(product.det()))
    assert found == pytest.approx((first + second).trace().item() - 2 * root, abs=1e-9)


class Numbers(nn.Module):
    """Takes pictures of 5 x 1 numbers for features."""

    num_features = 5

    def forward(self, images):
        return images.flatten(1)


def test_it_is_the_distance_that_torchmetrics_finds():
    torch.manual_seed(0)
    real = torch.randn(300, 5) @ torch.randn(5, 5)
    fake = torch.randn(200, 5) @ torch.randn(5, 5) + 0.5
    metric = FrechetInceptionDistance(Numbers(), normalize=True)
    metric.set_dtype(torch.float64)
    metric.update(real.view(-1, 1, 1, 5), real=True)
    metric.update(fake.view(-1, 1, 1, 5), real=False)
    assert frechet_distance(real, fake) == pytest.approx(metric.compute().item(), rel=1e-4)


def test_it_is_symmetric_and_no_rotation_changes_it():
    torch.manual_seed(0)
    real, fake = torch.randn(40, 4).double(), torch.randn(30, 4).double() * 2 + 1
    turn = rotation(4)
    assert frechet_distance(fake, real) == pytest.approx(frechet_distance(real, fake))
    assert frechet_distance(real @ turn, fake @ turn) == pytest.approx(frechet_distance(real, fake))


def test_of_a_sample_from_itself_it_is_zero_also_where_features_depend_on_each_other():
    sample = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    sample[:, 5] = sample[:, 4]
    assert 0 <= frechet_distance(sample, sample) < 1e-6


def test_of_two_samples_of_one_source_it_falls_with_their_size():
    torch.manual_seed(0)
    few, many = (frechet_distance(torch.randn(n, 8), torch.randn(n, 8)) for n in (50, 5000))
    assert few > 20 * many > 0


def test_a_far_away_mean_costs_no_digits():
    sample = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).double()
    assert frechet_distance(sample + 1e4, sample + 1e4 + 1) == pytest.approx(3, abs=1e-6)


@pytest.mark.parametrize(
    "real, fake, says",
    [
        (torch.randn(9, 3), torch.randn(9, 4), "3 features of the real and 4 of the fake"),
        (torch.randn(4, 4), torch.randn(9, 4), "4 real pictures with 4 features: .* at least 5"),
        (torch.randn(9, 4), torch.randn(3, 4), "3 fake pictures with 4 features"),
        (torch.randn(9, 4), torch.full((9, 4), torch.inf), "fake features that are not finite"),
        (torch.full((9, 4), torch.nan), torch.randn(9, 4), "real features that are not finite"),
    ],
)
def test_what_has_no_distance_is_refused(real, fake, says):
    with pytest.raises(InputError, match=says):
        frechet_distance(real, fake)
