import pytest
import torch

from course_lib.errors import InputError
from course_lib.models.semi_supervised_gan import Generator


@pytest.mark.parametrize("channels, side_px", [(1, 8), (1, 28), (3, 32)])
def test_images_have_the_asked_size_and_range(channels, side_px):
    images = Generator(channels=channels, side_px=side_px, latent_dim=7)(100 * torch.randn(4, 7))
    assert images.shape == (4, channels, side_px, side_px)
    assert images.min() >= -1 and images.max() <= 1


@pytest.mark.parametrize("side_px", [4, 10])
def test_a_side_that_doubling_cannot_reach_is_refused(side_px):
    with pytest.raises(InputError, match=f"side_px={side_px} .*multiple of 4"):
        Generator(channels=1, side_px=side_px, latent_dim=7)
