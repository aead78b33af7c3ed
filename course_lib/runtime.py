"""Seeds, device and precision: the only file that knows what the code runs on."""

import os
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from threadpoolctl import threadpool_limits

from course_lib.errors import InputError

Scale = Literal["quick", "full"]
SCALES = ("quick", "full")
ALL_THREADS = torch.get_num_threads()
T = TypeVar("T")


def resolve_scale(scale: str = "auto") -> Scale:
    """Turn "auto" into "full" where a GPU is present and "quick" elsewhere.

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
        return "full" if torch.accelerator.is_available() else "quick"
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
    asked = os.environ.get("COURSE_THREADS", "")
    if asked and not (asked.isascii() and asked.isdecimal() and 1 <= int(asked) <= 1024):
        raise InputError(f"COURSE_THREADS={asked!r} is not a number of threads: use a whole number from 1 to 1024")
    threads = int(asked) if asked else by_scale(scale)(quick=1, full=ALL_THREADS)
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


def start(seed: int, *, scale: Scale) -> Accelerator:
    """Seed every random generator and return the Accelerate object that places, prepares and saves a run.

    Threads are those of `use_threads`. At the quick scale arithmetic is float32, so that the outputs stored in the
    notebooks hold everywhere. At full scale it is bfloat16 where the hardware has it; never float16, whose gradient
    scaler cannot serve two players that are updated in turn.

    Each process of a distributed run gets its own seed: with a common one all of them would draw the same noise.
    """
    use_threads(scale)
    precision = "bf16" if scale == "full" and bfloat16_is_native() else "no"
    # Accelerate keeps the precision in a process-wide singleton and refuses a second one; a notebook may want both.
    AcceleratorState._reset_state()
    # Discriminators with batch norm see two batches before one update; broadcasting buffers in between would
    # change them in place under autograd.
    buffers = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[buffers])
    set_seed(seed, device_specific=True)
    return accelerator


def describe(accelerator: Accelerator) -> dict[str, str | int]:
    """Name the device, the precision and the number of threads and processes, for the record of a run."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "precision": "bfloat16" if accelerator.mixed_precision == "bf16" else "float32",
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
    }


def is_main_process() -> bool:
    """Whether this process is the one that writes files and speaks, among those of `accelerate launch`."""
    return PartialState().is_main_process


def wait_for_everyone() -> None:
    """Let the processes of a distributed run wait for each other."""
    PartialState().wait_for_everyone()
