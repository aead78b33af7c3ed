"""Several networks of one form trained at once, each for itself."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from course_lib.errors import InputError


class Ensemble(nn.Module):
    """Networks of one form as one: each gets its own part of the batch, in order.

    Small networks are held up by the work around their sums, not by the sums. Ten
    of them as one take little longer than one alone. They share nothing: an update
    by a loss that is a mean over the whole batch is, but for the factor
    `len(networks)`, the update that each would have had by itself. So scale the
    loss by it (Adam hardly notices the factor, SGD does).

    The networks given are copied. Parts that update themselves in `forward` (batch
    or spectral normalisation) cannot be stacked.

    Args:
        networks: of one class, with weights of the same shapes.

    Raises:
        InputError: there is no network, or one that updates itself; in `forward`:
            the batch cannot be shared out evenly.

    Source: PyTorch's tutorial on model ensembling with `torch.func`.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise InputError("found 0 networks: an ensemble needs at least 1")
        if buffers := dict(networks[0].named_buffers()):
            raise InputError(
                f"found {', '.join(buffers)} in the network: what updates itself "
                "cannot be stacked; leave normalisation layers out"
            )
        stacked, _ = stack_module_state(list(networks))
        self._names = list(stacked)
        self.weights = nn.ParameterList(stacked.values())
        # In a tuple, so that its weights, which are nobody's, are not registered.
        self._form = (copy.deepcopy(networks[0]).to("meta"),)

    def __len__(self) -> int:
        return len(self.weights[0])

    def forward(
        self,
        batch: Float[Tensor, "batch *shape"],
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch *outputs"]:
        if len(batch) % len(self):
            raise InputError(
                f"found a batch of {len(batch)} for {len(self)} networks: each "
                "needs an equal part"
            )
        parts = [batch] if labels is None else [batch, labels]
        parts = [part.unflatten(0, (len(self), -1)) for part in parts]
        weights = dict(zip(self._names, self.weights, strict=True))
        return vmap(self._one)(weights, *parts).flatten(0, 1)

    def member(self, index: int) -> nn.Module:
        """Return one of the networks, a copy with its weights as they are now."""
        network = copy.deepcopy(self._form[0]).to_empty(
            device=self.weights[0].device
        )
        with torch.no_grad():
            own = dict(network.named_parameters())
            for name, weight in zip(self._names, self.weights, strict=True):
                own[name].copy_(weight[index])
        return network

    def _one(self, weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return functional_call(self._form[0], weights, inputs)
