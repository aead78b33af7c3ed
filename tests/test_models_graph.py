from typing import NamedTuple

import pytest
import torch
from torch import nn

from course_lib.models.graph import layer_graph


class TwoWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(1, 4, 5, padding=2)
        self.narrow = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2, 4, 2, stride=2)

    def forward(self, x):
        return torch.relu(self.wide(x) + self.up(self.narrow(x)))


def test_branches_and_sums_are_found():
    labels, arrows = layer_graph(TwoWays(), torch.zeros(3, 1, 8, 8))
    assert list(labels.values()) == [
        "input\n1 × 8 × 8",
        "Conv2d 5 × 5\n4 × 8 × 8",
        "Conv2d 3 × 3, stride 2\n2 × 4 × 4",
        "ConvTranspose2d 2 × 2, stride 2\n4 × 8 × 8",
        "add\n4 × 8 × 8",
        "relu\n4 × 8 × 8",
    ]
    assert set(arrows) == {
        ("x", "wide"),
        ("x", "narrow"),
        ("narrow", "up"),
        ("wide", "add"),
        ("up", "add"),
        ("add", "relu"),
    }


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layer_graph(network, torch.rand(4, 1, 8, 8))
    assert network.training == training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class TwoAnswers(nn.Module):
    def forward(self, x):
        doubled = 2 * x
        return Answers(doubled, doubled.mean(dim=1))


class Answers(NamedTuple):
    all: torch.Tensor
    mean: torch.Tensor


def test_a_tuple_of_outputs_is_not_a_step():
    labels, _ = layer_graph(TwoAnswers(), torch.zeros(3, 4))
    assert [label.split("\n")[0] for label in labels.values()] == ["input", "mul", "mean"]
