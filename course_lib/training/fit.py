"""The only training loop of the course: batches, averaging, progress bar, checkpoints, a clean stop."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from course_lib.training.checkpoint import Checkpoints
from course_lib.training.monitor import Monitor


@dataclass
class Training:
    """All that `fit` needs to know of a training.

    Args:
        name: what the progress bar says.
        step: makes the update number `step` (from 0) and returns its losses, detached. Everything random in it comes
            from torch's global state or is a function of the step's number: that is what makes a resumed run exact.
        evaluate: measures after every epoch; keys such as "test_accuracy", values in fractions.
        steps: how many updates there are; a schedule counts these, never seconds.
        steps_per_epoch: after how many of them `evaluate` is called.
        optimizers: those whose learning rate follows `learning_rate`, prepared by Accelerate.
        learning_rate: factor on the rates as a function of the fraction of the training done.
        averages: an average of a network's weights over the last steps, and that network.
    """

    name: str
    step: Callable[[int], dict[str, Tensor]]
    evaluate: Callable[[], dict[str, float]]
    steps: int
    steps_per_epoch: int
    optimizers: list[Optimizer]
    learning_rate: Callable[[float], float] = field(default=lambda progress: 1.0)
    averages: tuple[AveragedModel, nn.Module] | None = None


class Fitted(NamedTuple):
    """One dict of mean losses and scores for each epoch; and at which step, after what time, a resumed run went on."""

    history: list[dict[str, float]]
    resumed_from_step: int
    earlier_seconds: float


class Stopped(KeyboardInterrupt):
    """Somebody asked the run to stop; what could be saved has been saved.

    It is a KeyboardInterrupt, so that Jupyter and the shell treat it as the stop that it is.
    """

    def __init__(self, signal_number: int, step: int, saved: bool) -> None:
        where = "its state is saved" if saved else "nothing is saved, because no output folder was given"
        super().__init__(f"stopped after step {step}; {where}")
        self.signal_number = signal_number


class StopRequest:
    """Within this context the first Ctrl-C or SIGTERM is only written down, so that a step is never cut in two.

    A second one acts at once. Signals reach the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._write_down)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _write_down(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())


def hold_then_fall(hold: float) -> Callable[[float], float]:
    """Return a schedule: full rate for the fraction `hold` of the training, then in a straight line to 0."""
    return lambda progress: min(1.0, (1 - progress) / (1 - hold))


def fit(
    training: Training,
    accelerator: Accelerator,
    *,
    checkpoints: Checkpoints | None = None,
    checkpoint_steps: int = 0,
    resume: bool = False,
) -> Fitted:
    """Train to the end, or from the newest checkpoint to the end.

    Args:
        checkpoints: where to save; None saves nothing.
        checkpoint_steps: save after every so many steps, after the last one, and when stopped.
        resume: go on from the newest intact checkpoint, if there is one.

    Raises:
        Stopped: Ctrl-C or SIGTERM came; the step under way was finished and saved first.
        DivergedError: a loss became infinite or not a number.
    """
    average, averaged = training.averages or (None, None)
    monitor = Monitor(training.name, steps=training.steps, visible=accelerator.is_main_process)
    # Read before a checkpoint is restored: it brings back the rates of its own step.
    full_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in training.optimizers]
    found = checkpoints.newest() if checkpoints and resume else None
    if found:
        checkpoints.restore(accelerator, found, average)
    first = found.step if found else 0

    with StopRequest() as stop:
        monitor.start(first, found.progress if found else None)
        try:
            for step in range(first, training.steps):
                factor = training.learning_rate(step / training.steps)
                for optimizer, rates in zip(training.optimizers, full_rates, strict=True):
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * factor
                monitor.record(training.step(step))
                if average is not None:
                    average.update_parameters(averaged)
                done = step + 1
                if done % training.steps_per_epoch == 0:
                    monitor.end_epoch(done // training.steps_per_epoch, done, training.evaluate())
                due = checkpoint_steps > 0 and done % checkpoint_steps == 0
                if checkpoints and (due or done == training.steps or stop.signal_number):
                    checkpoints.save(accelerator, done, average, monitor.progress())
                if stop.signal_number and done < training.steps:
                    raise Stopped(stop.signal_number, done, saved=checkpoints is not None)
        finally:
            monitor.stop()
    return Fitted(monitor.history, resumed_from_step=first, earlier_seconds=monitor.earlier_seconds)
