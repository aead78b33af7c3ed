"""Seeds, device and precision: the only file that knows what the code runs on."""

import inspect
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env, set_seed
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from course_lib.errors import InputError

Scale = Literal["quick", "full"]
SCALES = ("quick", "full")
Precision = Literal["auto", "float32", "bfloat16"]
ALL_THREADS = torch.get_num_threads()
T = TypeVar("T")


def resolve_scale(scale: str = "auto") -> Scale:
    """Turn "auto" into "full" where a CUDA GPU is present and "quick" elsewhere, on Apple's GPUs too.

    The environment variable `COURSE_SCALE` (quick or full) decides instead of the hardware, but only for "auto":
    a scale that the caller names is kept.

    Raises:
        InputError: the scale, or `COURSE_SCALE`, is none of these.
    """
    source = f"scale={scale!r}"
    if scale == "auto":
        scale = os.environ.get("COURSE_SCALE", "auto")
        source = f"COURSE_SCALE={scale!r}"
    if scale == "auto":
        return "full" if torch.cuda.is_available() else "quick"
    if scale not in SCALES:
        raise InputError(f"{source} is not a scale: use quick, full or auto")
    return scale


def by_scale(scale: Scale) -> Callable[..., T]:
    """Return a function that picks, of a value for each scale, the one for this scale: pick(quick=5, full=2)."""

    def pick(*, quick: T, full: T) -> T:
        return {"quick": quick, "full": full}[scale]

    return pick


def use_threads(scale: Scale) -> None:
    """Let torch, NumPy and scikit-learn compute on one thread at the quick scale, and on all of them at full scale.

    One thread, so that a notebook computes the same sums on machines with any number of cores; for networks as small
    as those of the quick scale a second one brings little, and beside another busy program it costs more than half
    the speed. The environment variable `COURSE_THREADS` (a number from 1 on) decides instead.

    Call it after the imports: it reaches the libraries that are loaded by then.

    Raises:
        InputError: `COURSE_THREADS` is not such a number.
    """
    _set_threads(by_scale(scale)(quick=1, full=None))


def _set_threads(threads: int | None) -> None:
    asked = os.environ.get("COURSE_THREADS", "")
    if asked and not (asked.isascii() and asked.isdecimal() and 1 <= int(asked) <= 1024):
        raise InputError(f"COURSE_THREADS={asked!r} is not a number of threads: use a whole number from 1 to 1024")
    threads = int(asked) if asked else threads or ALL_THREADS
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def bfloat16_is_native() -> bool:
    """Whether bfloat16 runs in hardware here: elsewhere it is emulated, and slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.accelerator.is_available():
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def start(seed: int, precision: Precision, threads: int | None) -> Accelerator:
    """Seed every random generator and return the Accelerate object that places, prepares and saves a run.

    Args:
        precision: "auto" is bfloat16 where the hardware has it and float32 elsewhere. Never float16, whose gradient
            scaler cannot serve two players that are updated in turn.
        threads: how many CPU threads; None is all there are. `COURSE_THREADS` decides instead.

    Each process of a distributed run gets its own seed: with a common one all of them would draw the same noise.
    """
    _set_threads(threads)
    precision = "bf16" if precision == "bfloat16" or (precision == "auto" and bfloat16_is_native()) else "no"
    # Accelerate keeps the precision in a process-wide singleton and refuses a second one; a notebook may want both.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=precision)
    accelerator.ddp_handler = _BuffersStay()
    set_seed(seed, device_specific=True)
    return accelerator


def describe() -> dict[str, str | int]:
    """Name the device, the precision, the threads and the processes of the run begun last, for its record."""
    name = torch.cuda.get_device_name(device()) if device().type == "cuda" else device().type
    return {
        "device": name,
        "precision": "bfloat16" if AcceleratorState().mixed_precision == "bf16" else "float32",
        "threads": torch.get_num_threads(),
        "processes": processes(),
    }


def _state() -> PartialState:
    # Whoever asks first decides for the process, so each asks as Accelerate itself would.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def device() -> torch.device:
    """Where this process computes."""
    return _state().device


def processes() -> int:
    """How many processes `accelerate launch` started; 1 without it."""
    return _state().num_processes


def process_index() -> int:
    """Which of them this is, from 0."""
    return _state().process_index


def is_main_process() -> bool:
    """Whether this process is the one that writes files and speaks, among those of `accelerate launch`."""
    return _state().is_main_process


def wait_for_everyone() -> None:
    """Let the processes of a distributed run wait for each other."""
    _state().wait_for_everyone()


def random_states() -> dict[str, Any]:
    """Return the state of each random generator of this process, by its name.

    Python's, NumPy's, torch's on the CPU, and torch's on all CUDA devices or Apple's GPU where there are any.
    """
    return {name: read() for name, (read, _) in _generators().items()}


def set_random_states(states: dict[str, Any]) -> None:
    """Put generators of this process back to states that `random_states` returned; those not named stay as they are."""
    generators = _generators()
    for name, state in states.items():
        if name in generators:
            generators[name][1](state)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put all random generators back afterwards, as if nothing within had drawn a random number."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


def random_states_unknown_to_accelerate() -> dict[str, Tensor]:
    """Return those of `random_states` that `Accelerator.save_state` leaves out: that of Apple's GPU."""
    return {name: state for name, state in random_states().items() if name == "mps"}


def _generators() -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    """Return how to read and how to set the state of each random generator, by its name."""
    found = {
        "Python": (random.getstate, random.setstate),
        "NumPy": (np.random.get_state, np.random.set_state),
        "cpu": (torch.get_rng_state, torch.set_rng_state),
    }
    if torch.cuda.is_available():
        found["cuda"] = (torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    if torch.backends.mps.is_available():
        found["mps"] = (torch.mps.get_rng_state, torch.mps.set_rng_state)
    return found


class _BuffersStay(DistributedDataParallelKwargs):
    """Let no process overwrite another one's buffers before a forward pass.

    Discriminators with batch norm see two batches before one update; what is overwritten in between would be changed
    in place under autograd. Torch 2.13 gave the option a new name, which Accelerate does not know.
    """

    def to_kwargs(self) -> dict[str, Any]:
        known = inspect.signature(DistributedDataParallel).parameters
        return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
