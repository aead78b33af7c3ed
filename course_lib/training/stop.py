"""A stop that waits for the step under way, and on which all processes of a run agree."""

import signal
import threading
import time
from types import FrameType

import torch
from accelerate import Accelerator

ECHO_SECONDS = 1.0


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

    A second one acts at once, if it comes more than `ECHO_SECONDS` after the first: a launcher of several processes
    passes on the Ctrl-C that each of them has had from the terminal already. A signal that nobody answered by raising
    `Stopped` is sent again when the context ends. Signals reach the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._write_down)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if kind is None and self.signal_number:
            signal.raise_signal(self.signal_number)

    def agreed(self, accelerator: Accelerator) -> int | None:
        """Return the signal that was sent to any process of the run, or None: the same answer in all of them.

        Every process must ask, after the same step. A process that is alone asks nobody, and so no GPU has to wait.
        """
        if accelerator.num_processes == 1:
            return self.signal_number
        numbers = accelerator.gather(torch.tensor([self.signal_number or 0], device=accelerator.device))
        return int(numbers.max()) or None

    def _write_down(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > ECHO_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
