"""The only training loop of the course: batches, averaging, pictures, progress bar, checkpoints, a clean stop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from course_lib import runtime
from course_lib.errors import InputError
from course_lib.training.average import RunningAverage
from course_lib.training.checkpoint import Checkpoints
from course_lib.training.monitor import Monitor
from course_lib.training.stop import Stopped, StopRequest


@dataclass
class Training:
    """All that `fit` needs to know of a training.

    Args:
        name: what the progress bar says.
        step: makes the update number `step` (from 0) and returns its losses, detached. Everything random in it comes
            from torch's global state or is a function of the step's number: that is what makes a resumed run exact.
        evaluate: measures what a report holds beside the losses; keys such as "test_accuracy", values in fractions.
        steps: how many updates there are; a schedule counts these, never seconds.
        report_steps: after how many of them `evaluate` is called and a line of history written.
        optimizers: those whose learning rate follows `learning_rate`, prepared by Accelerate.
        learning_rate: factor on the rates as a function of the fraction of the training done.
        average: a running average of a network, updated after every step.
        steps_per_epoch: how many steps an epoch has; then a line of history also says how many epochs are complete.
        shown: which values of a line the progress bar shows, each with its format: {"test_accuracy": ".1%"}.
        draw: returns images in [-1, 1] that show what a generator has learnt (see `samples.drawing`).
        draw_steps: after how many steps they are drawn; also before the first step and after the last.
    """

    name: str
    step: Callable[[int], dict[str, Tensor]]
    evaluate: Callable[[], dict[str, float]]
    steps: int
    report_steps: int
    optimizers: list[Optimizer]
    learning_rate: Callable[[float], float] = field(default=lambda progress: 1.0)
    average: RunningAverage | None = None
    steps_per_epoch: int | None = None
    shown: Mapping[str, str] = field(default_factory=dict)
    draw: Callable[[], Tensor] | None = None
    draw_steps: int = 0


class Fitted(NamedTuple):
    """The history, one dict of mean losses and scores a report; and at which step, after what time, it was resumed."""

    history: list[dict[str, float]]
    resumed_from_step: int
    earlier_seconds: float


def hold_then_fall(hold: float) -> Callable[[float], float]:
    """Return a schedule: full rate for the fraction `hold` of the training, then in a straight line to 0.

    Raises:
        InputError: `hold` is not from 0 to 1.
    """
    if not 0 <= hold <= 1:
        raise InputError(f"hold={hold} is no fraction of a training: use a number from 0 to 1 (1 is a constant rate)")
    return lambda progress: min(1.0, (1 - progress) / (1 - hold)) if hold < 1 else 1.0


def fit(
    training: Training,
    accelerator: Accelerator,
    *,
    checkpoints: Checkpoints | None = None,
    checkpoint_steps: int = 0,
    resume: bool = False,
    show: Callable[[int, Tensor], None] | None = None,
) -> Fitted:
    """Train to the end, or from the newest checkpoint to the end.

    Args:
        checkpoints: where to save; None saves nothing.
        checkpoint_steps: save after every so many steps, after the last one, and when stopped.
        resume: go on from the newest intact checkpoint, if there is one.
        show: is given the steps made and the images of `training.draw`, in the main process only. A picture is shown
            before the checkpoint of its step is saved, so that a resumed run need not show it again.

    Raises:
        Stopped: Ctrl-C or SIGTERM came to this process or to another one of the run; the step under way was finished
            and saved first, be it the last one.
        DivergedError: a loss or a score became infinite or not a number.
        InputError: the checkpoint is of another run, or cannot be taken up here.
    """
    monitor = Monitor(training.name, steps=training.steps, shown=training.shown, visible=accelerator.is_main_process)
    # Read before a checkpoint is restored: it brings back the rates of its own step.
    full_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in training.optimizers]
    found = checkpoints.newest() if checkpoints and resume else None
    if found:
        checkpoints.restore(accelerator, found, training.average)
    first = found.step if found else 0

    def show_picture(done: int) -> None:
        if show and training.draw and accelerator.is_main_process:
            with runtime.random_states_kept():
                show(done, training.draw())

    with StopRequest() as stop:
        monitor.start(first, found.progress if found else None)
        try:
            if first == 0:
                show_picture(0)
            for step in range(first, training.steps):
                _set_rates(training.optimizers, full_rates, training.learning_rate(step / training.steps))
                monitor.record(training.step(step))
                if training.average:
                    training.average.update()
                done, last = step + 1, step + 1 == training.steps
                if done % training.report_steps == 0:
                    epoch = done // training.steps_per_epoch if training.steps_per_epoch else None
                    monitor.report(done, training.evaluate(), epoch=epoch)
                if last or _is_due(done, training.draw_steps):
                    show_picture(done)
                stopped_by = stop.agreed(accelerator)
                if checkpoints and (last or stopped_by or _is_due(done, checkpoint_steps)):
                    checkpoints.save(accelerator, done, training.average, monitor.progress(done))
                if stopped_by:
                    raise Stopped(stopped_by, done, saved=checkpoints is not None)
            if stopped_by := stop.agreed(accelerator):  # it came while the last checkpoint was saved
                raise Stopped(stopped_by, training.steps, saved=checkpoints is not None)
        finally:
            monitor.stop()
    return Fitted(monitor.history, resumed_from_step=first, earlier_seconds=monitor.earlier_seconds)


def _is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _set_rates(optimizers: list[Optimizer], full_rates: list[list[float]], factor: float) -> None:
    for optimizer, rates in zip(optimizers, full_rates, strict=True):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
