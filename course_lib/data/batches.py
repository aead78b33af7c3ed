"""Which images come in which step: a pure function of the seed and the step, so that a resumed run needs no memory."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


class ShuffledIndices:
    """An endless sequence of indices below `size`: one random permutation after another.

    Every index comes once before any comes again, also across batches; a batch may be larger than `size`.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._round = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def batch(self, step: int, batch_size: int) -> Int[Tensor, " {batch_size}"]:
        """Return the indices of batch number `step` (from 0), the same ones whatever was asked before."""
        parts = []
        position, end = step * batch_size, (step + 1) * batch_size
        while position < end:
            round_, offset = divmod(position, self.size)
            part = self._permutation_of(round_)[offset : offset + end - position]
            parts.append(part)
            position += len(part)
        return torch.cat(parts)

    def _permutation_of(self, round_: int) -> Int[Tensor, " {self.size}"]:
        if round_ != self._round:
            # SeedSequence mixes the pair well: neighbouring seeds and rounds give unrelated permutations.
            state = int(np.random.SeedSequence([self.seed, round_]).generate_state(1)[0])
            self._permutation = torch.randperm(self.size, generator=torch.Generator().manual_seed(state))
            self._round = round_
        return self._permutation
