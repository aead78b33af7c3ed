import pytest
import torch

from course_lib.errors import InputError
from course_lib.models.classifier import Classifier


@pytest.mark.parametrize("channels, side_px, classes", [(1, 8, 10), (1, 28, 10), (3, 32, 5), (1, 11, 2)])
def test_any_side_gives_logits_and_features(channels, side_px, classes):
    network = Classifier(channels=channels, side_px=side_px, classes=classes, noise_std=0.1, dropout=0.1)
    logits, features = network(torch.rand(3, channels, side_px, side_px))
    assert logits.shape == (3, classes) and features.shape == (3, 256)


def test_what_it_says_of_an_image_does_not_depend_on_its_neighbours():
    network = Classifier(channels=1, side_px=8, classes=10, noise_std=0.0, dropout=0.0)  # in training mode
    images = torch.rand(6, 1, 8, 8)
    together = network(images).logits
    alone = torch.cat([network(image[None]).logits for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_picture_too_small_is_refused():
    with pytest.raises(InputError, match="side_px=7 .*at least 8"):
        Classifier(channels=1, side_px=7, classes=10, noise_std=0.1, dropout=0.1)
