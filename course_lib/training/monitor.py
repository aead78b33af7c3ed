"""What a run tells while it goes on: a progress bar, and a line of history now and then."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.errors import InputError


class DivergedError(InputError):
    """A loss or a score is no longer a number."""


class Monitor:
    """Gather the losses between two reports, keep the history and draw the bar.

    Losses stay where they were computed until they are needed: reading one makes a GPU wait. They are added up by
    Python, in double precision, which Apple's GPUs do not have. The bar goes to stderr, and is silent when the
    environment variable `TQDM_DISABLE` is set.

    Args:
        shown: which values of the newest line the bar shows, each with its format: {"test_accuracy": ".1%"}.
    """

    def __init__(self, name: str, *, steps: int, shown: Mapping[str, str], visible: bool = True) -> None:
        self.name = name
        self.steps = steps
        self.shown = shown
        self.visible = visible
        self.history: list[dict[str, float]] = []
        self.earlier_seconds = 0.0  # spent before the run was stopped and resumed
        self._started = time.perf_counter()
        self._unread: dict[str, list[Tensor]] = {}
        self._sums: dict[str, float] = {}
        self._count = 0
        self._bar: tqdm | None = None

    def start(self, step: int, progress: dict[str, Any] | None = None) -> None:
        """Open the bar at a step; `progress` is what `progress()` returned when the run was saved there."""
        if progress:
            self.history = list(progress["history"])
            self._sums = dict(progress["sums"])
            self._count = progress["count"]
            self.earlier_seconds = progress["seconds"]
        self._started = time.perf_counter()
        if self.visible:
            watched = sys.stderr.isatty() or "ipykernel" in sys.modules
            often = 0.2 if watched else 10.0  # seconds; a log file wants few lines
            self._bar = tqdm(total=self.steps, initial=step, desc=self.name, unit="step", mininterval=often)
            self._show_newest()

    def record(self, losses: dict[str, Tensor]) -> None:
        """Take the losses of one step, each one number, detached."""
        for key, value in losses.items():
            self._unread.setdefault(key, []).append(value)
        self._count += 1
        if self._bar is not None:
            self._bar.update()

    def report(self, step: int, scores: dict[str, float], *, epoch: int | None = None) -> None:
        """Write down the mean losses since the last report and the scores measured now, after `step` steps.

        Raises:
            DivergedError: one of them is infinite or not a number.
        """
        means = {key: value / self._count for key, value in self._read(step).items()}
        self._check(scores, step)
        when = {"step": step} if epoch is None else {"epoch": epoch, "step": step}
        self.history.append({**when, **means, **scores})
        self._sums, self._count = {}, 0
        self._show_newest()

    def progress(self, step: int) -> dict[str, Any]:
        """Return what a checkpoint after `step` steps must hold to go on from there, as plain JSON values.

        Raises:
            DivergedError: a loss became infinite or not a number.
        """
        seconds = self.earlier_seconds + time.perf_counter() - self._started
        return {"history": self.history, "sums": self._read(step), "count": self._count, "seconds": seconds}

    def stop(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _read(self, step: int) -> dict[str, float]:
        """Add up the losses that were left on their device, and return the sums since the last report."""
        for key, values in self._unread.items():
            for value in torch.stack(values).tolist():
                self._sums[key] = self._sums.get(key, 0.0) + value
        self._unread = {}
        self._check(self._sums, step)
        return self._sums

    def _check(self, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{self.name}: {key} became {value} by step {step}: "
                    "use a lower learning rate, or look at the images for values that are not numbers"
                )

    def _show_newest(self) -> None:
        if self.history and self._bar is not None:
            newest = self.history[-1]
            shown = {
                key.replace("_", " "): format(newest[key], spec) for key, spec in self.shown.items() if key in newest
            }
            self._bar.set_postfix(shown, refresh=False)
