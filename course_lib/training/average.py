"""A running average of a network's weights, which scores better and more steadily than the newest weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.types import Device


class RunningAverage:
    """The exponential average of a network's numbers, taken after every update: a <- decay * a + (1 - decay) * w.

    It begins with the numbers after the first update. Statistics of batch norm are averaged with the weights that they
    belong to; whole numbers, such as the count of batches, are those of the newest network.

    Args:
        network: the one that is trained. Make the average before Accelerate prepares the network: it takes a copy,
            which keeps computing in float32.
        decay: of the average, from 0 (the newest weights) to 1; the average is over about 1 / (1 - decay) updates.
        device: where the average lies.
    """

    def __init__(self, network: nn.Module, decay: float, device: Device) -> None:
        self._source = network
        self._average = AveragedModel(network, device=device, multi_avg_fn=_average_floats(decay), use_buffers=True)

    @property
    def network(self) -> nn.Module:
        """The averaged network; `update` changes it in place."""
        return self._average.module

    def update(self) -> None:
        """Take the weights of the trained network in."""
        self._average.update_parameters(self._source)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold: the averaged numbers, and over how many updates they were taken."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state that `state_dict` returned."""
        self._average.load_state_dict(state)


def _average_floats(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], newest: Sequence[Tensor], updates: Tensor) -> None:
        if averaged[0].is_floating_point():
            average(averaged, newest, updates)
        else:  # torch hands over tensors of one type at a time
            for old, new in zip(averaged, newest, strict=True):
                old.copy_(new)

    return update
