import pytest
import torch

from course_lib.losses.diversity import mode_seeking_loss


def test_it_is_minus_the_mean_ratio_of_the_distances():
    torch.manual_seed(0)
    images, others = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    latent, other = torch.randn(2, 3, 5, dtype=torch.float64)
    ratios = [
        sum(abs(a - b) for a, b in zip(x.flatten(), y.flatten(), strict=True))
        / 16
        / (sum(abs(a - b) for a, b in zip(z, w, strict=True)) / 5)
        for x, y, z, w in zip(images, others, latent, other, strict=True)
    ]
    assert mode_seeking_loss(images, others, latent, other).item() == pytest.approx(-sum(ratios).item() / 3, rel=1e-12)


def test_a_generator_that_ignores_its_latent_vector_has_the_largest_loss():
    images, latents = torch.randn(4, 1, 2, 2), torch.randn(2, 4, 3)
    assert mode_seeking_loss(images, images, *latents).item() == 0
    assert mode_seeking_loss(images, -images, *latents).item() < 0


def test_descent_drives_two_images_apart():
    """The pinned gradient: one pixel of one, latents 2 apart, so the loss falls by 1/2 for each unit of distance."""
    image = torch.tensor([[[[0.5]]]], requires_grad=True)
    mode_seeking_loss(image, torch.zeros(1, 1, 1, 1), torch.tensor([[1.0]]), torch.tensor([[-1.0]])).backward()
    assert image.grad.item() == -0.5
