import pytest
import torch
from torch import nn

from course_lib.evaluation.accuracy import accuracy
from course_lib.models.classifier import ClassifierOutput


class Reader(nn.Module):
    """Says the class that is written in the first pixel, and something else while training."""

    def forward(self, images):
        said = images[:, 0, 0, 0].long() if not self.training else torch.zeros(len(images), dtype=torch.int64)
        return ClassifierOutput(torch.eye(3)[said], torch.zeros(len(images), 1))


def test_accuracy_is_the_share_of_right_answers_over_all_batches():
    images = torch.tensor([0.0, 1, 2, 2, 1, 0, 0]).reshape(7, 1, 1, 1)
    labels = torch.tensor([0, 1, 2, 0, 0, 0, 0])
    assert accuracy(Reader(), images, labels, batch_size=3) == pytest.approx(5 / 7)


def test_the_mode_is_put_back():
    network = Reader()
    accuracy(network, torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64))
    assert network.training


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        accuracy(Reader(), torch.zeros(0, 1, 1, 1), torch.zeros(0, dtype=torch.int64))
