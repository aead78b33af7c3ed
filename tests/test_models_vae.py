import pytest
import torch

from course_lib.models.vae import VAE, reparameterise


@pytest.mark.parametrize("channels, side_px", [(1, 8), (1, 28), (3, 16)])
def test_a_vae_fits_pictures_of_any_channels_and_side(channels, side_px):
    network = VAE(channels=channels, side_px=side_px, latent_dim=5, width=2)
    images = torch.rand(4, channels, side_px, side_px) * 2 - 1
    output = network(images, torch.randn(4, 5))
    assert output.logits.shape == images.shape and output.mean.shape == output.log_variance.shape == (4, 5)


def test_the_logits_are_decoded_from_a_draw_of_the_gaussian_that_the_encoder_says():
    network = VAE(channels=1, side_px=8, latent_dim=3, width=2).eval()
    images, noise = torch.rand(4, 1, 8, 8) * 2 - 1, torch.randn(4, 3)
    mean, log_variance = network.encode(images)
    assert not torch.allclose(mean, log_variance)
    output = network(images, noise)
    assert torch.equal(output.mean, mean) and torch.equal(output.log_variance, log_variance)
    assert torch.allclose(output.logits, network.decoder(mean + log_variance.exp().sqrt() * noise), atol=1e-6)
    assert not torch.allclose(output.logits, network(images, 0 * noise).logits)


def test_a_reparameterised_draw_has_the_mean_and_the_variance_asked_for():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    mean, variance = torch.tensor([3.0, -1.0]).double(), torch.tensor([4.0, 0.25]).double()
    drawn = reparameterise(mean.expand_as(noise), variance.log().expand_as(noise), noise)
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0), variance, rtol=0.02, atol=0)


def test_gradients_reach_mean_and_variance_through_the_draw():
    mean, log_variance = (torch.zeros(1, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    reparameterise(mean, log_variance, torch.tensor([[2.0, -1.0]]).double()).sum().backward()
    assert mean.grad.tolist() == [[1.0, 1.0]] and log_variance.grad.tolist() == [[1.0, -0.5]]
