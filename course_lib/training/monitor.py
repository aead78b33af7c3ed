"""What a run tells while it goes on: a progress bar, and one line of history an epoch."""

import sys
import time
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm


class DivergedError(RuntimeError):
    """A loss is no longer a number."""


class Monitor:
    """Gather the losses of each epoch, keep the history and draw the bar.

    Losses are added up where they were computed and read once an epoch: reading one makes a GPU wait. The bar goes to
    stderr, and is silent when the environment variable `TQDM_DISABLE` is set.
    """

    def __init__(self, name: str, *, steps: int, visible: bool = True) -> None:
        self.name = name
        self.steps = steps
        self.visible = visible
        self.history: list[dict[str, float]] = []
        self.earlier_seconds = 0.0  # spent before the run was stopped and resumed
        self._started = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._bar: tqdm | None = None

    def start(self, step: int, progress: dict[str, Any] | None = None) -> None:
        """Open the bar at a step; `progress` is what `progress()` returned when the run was saved there."""
        if progress:
            self.history = list(progress["history"])
            self._sums = {key: torch.tensor(value, dtype=torch.float64) for key, value in progress["sums"].items()}
            self._count = progress["count"]
            self.earlier_seconds = progress["seconds"]
        self._started = time.perf_counter()
        if self.visible:
            watched = sys.stderr.isatty() or "ipykernel" in sys.modules
            often = 0.2 if watched else 10.0  # seconds; a log file wants few lines
            self._bar = tqdm(total=self.steps, initial=step, desc=self.name, unit="step", mininterval=often)
            self._show_newest()

    def record(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of one step."""
        for key, value in losses.items():
            value = value.double()
            self._sums[key] = self._sums[key].to(value.device) + value if key in self._sums else value
        self._count += 1
        if self._bar is not None:
            self._bar.update()

    def end_epoch(self, epoch: int, step: int, scores: dict[str, float]) -> None:
        """Write down the mean losses of the epoch that ends and the scores measured after it.

        Raises:
            DivergedError: a loss became infinite or not a number.
        """
        means = {key: value.item() / self._count for key, value in self._sums.items()}
        for key, value in means.items():
            if not abs(value) < float("inf"):
                raise DivergedError(
                    f"{self.name}: {key} became {value} in epoch {epoch} (step {step}): "
                    "use a lower learning rate, or look at the images for values that are not numbers"
                )
        self.history.append({"epoch": epoch, "step": step, **means, **scores})
        self._sums, self._count = {}, 0
        self._show_newest()

    def progress(self) -> dict[str, Any]:
        """Return what a checkpoint must hold to go on from here, as plain JSON values."""
        sums = {key: value.item() for key, value in self._sums.items()}
        seconds = self.earlier_seconds + time.perf_counter() - self._started
        return {"history": self.history, "sums": sums, "count": self._count, "seconds": seconds}

    def stop(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _show_newest(self) -> None:
        if self.history and self._bar is not None:
            scores = {key: value for key, value in self.history[-1].items() if key.endswith("accuracy")}
            shown = {key.replace("_", " "): f"{value:.1%}" for key, value in scores.items()}
            self._bar.set_postfix(shown, refresh=False)
