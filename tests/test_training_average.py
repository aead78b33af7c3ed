import copy

import pytest
import torch
from torch import nn

from course_lib.training.average import RunningAverage


def trained(network):
    """Change a network's weights and pass a batch through it, three times; yield after each."""
    torch.manual_seed(0)
    for _ in range(3):
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight))
        network(torch.randn(8, 3))
        yield


def test_weights_and_batch_statistics_are_averaged_together_and_counts_are_copied():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = RunningAverage(network, 0.75, "cpu")
    by_hand = None
    for _ in trained(network):
        average.update()
        newest = copy.deepcopy(network.state_dict())
        by_hand = by_hand or newest
        for key, value in newest.items():
            by_hand[key] = 0.75 * by_hand[key] + 0.25 * value if value.is_floating_point() else value
    found = average.network.state_dict()
    assert found.keys() == by_hand.keys() and "1.running_var" in found
    for key, value in found.items():
        assert torch.allclose(value, by_hand[key]) and value.dtype == newest[key].dtype, key
    assert found["1.num_batches_tracked"] == 3
    assert not torch.allclose(found["1.running_mean"], newest["1.running_mean"])


def test_the_trained_network_is_left_alone():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = RunningAverage(network, 0.5, "cpu")
    for _ in trained(network):
        before = copy.deepcopy(network.state_dict())
        average.update()
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not {id(weight) for weight in network.parameters()} & {id(weight) for weight in average.network.parameters()}


def test_an_average_goes_on_from_its_state():
    network = nn.Linear(3, 4)
    whole, stopped = RunningAverage(network, 0.5, "cpu"), RunningAverage(network, 0.5, "cpu")
    for _ in trained(network):
        whole.update()
        stopped.update()
        resumed = RunningAverage(nn.Linear(3, 4), 0.5, "cpu")
        resumed.load_state_dict(stopped.state_dict())
        assert torch.equal(resumed.network.weight, whole.network.weight)
        again = RunningAverage(network, 0.5, "cpu")
        again.load_state_dict(stopped.state_dict())
        stopped = again


def test_a_decay_that_is_none_is_refused():
    with pytest.raises(ValueError, match="decay"):
        RunningAverage(nn.Linear(1, 1), 1.5, "cpu")
