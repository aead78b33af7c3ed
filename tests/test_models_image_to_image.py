import pytest
import torch

from course_lib.errors import InputError
from course_lib.models.image_to_image import Discriminator, Generator


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side_px", [8, 16, 28, 64])
def test_images_and_logits_have_the_asked_form(side_px, channels):
    given = torch.randn(2, channels, side_px, side_px)
    images = Generator(channels=channels, side_px=side_px, latent_dim=3, width=4)(torch.randn(2, 3), given)
    assert images.shape == given.shape and images.abs().max() <= 1
    assert Discriminator(channels=channels, side_px=side_px, width=4)(images, given).shape == (2,)


def test_the_answer_depends_on_the_latent_vector_and_on_the_given_image():
    torch.manual_seed(0)
    generator = Generator(channels=1, side_px=8, latent_dim=3, width=4).eval()
    latent, given = torch.randn(2, 3), torch.randn(2, 1, 8, 8)
    answer = generator(latent, given)
    assert not torch.equal(generator(latent + 1, given), answer)
    assert not torch.equal(generator(latent, given.flip(0)), answer)


def test_skips_lead_the_way_down_to_the_same_side_on_the_way_up():
    """Without what the small map says, the last layer still sees the maps at half of the side."""
    generator = Generator(channels=1, side_px=28, latent_dim=3, width=4).eval()
    given = torch.randn(2, 1, 28, 28)
    for layer in generator.up[:-1]:
        torch.nn.init.zeros_(layer[0].weight)
    answers = generator(torch.randn(2, 3), given)
    assert not torch.allclose(answers[0], answers[1], atol=1e-4)
    assert torch.equal(answers, generator(torch.randn(2, 3), given))


def test_every_weight_learns():
    generator = Generator(channels=1, side_px=16, latent_dim=3, width=4)
    generator(torch.randn(4, 3), torch.randn(4, 1, 16, 16)).square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in generator.parameters())


def test_the_discriminator_sees_whether_two_images_belong_together():
    network = Discriminator(channels=1, side_px=8, width=4).eval()
    images, given = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    assert torch.equal(network(images, given), network.network(torch.cat([images, given], dim=1)))
    assert not torch.equal(network(images, given.flip(0)), network(images, given))


@pytest.mark.parametrize("wrong, message", [({"side_px": 10}, "side_px=10"), ({"latent_dim": 0}, "latent_dim=0")])
def test_a_plan_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Generator(**{"channels": 1, "side_px": 8} | wrong)
