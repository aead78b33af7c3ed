"""Seeds, device and precision: the only file that knows what the code runs on."""

import os
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, set_seed

from course_lib.errors import InputError

Scale = Literal["quick", "full"]
SCALES = ("quick", "full")
ALL_THREADS = torch.get_num_threads()


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

    At the quick scale arithmetic is float32 on one thread, so that the outputs stored in the notebooks hold on
    machines with any number of cores; for networks this small a second thread brings little, and beside another busy
    program it costs more than half the speed. At full scale all threads are used and arithmetic is bfloat16 where the
    hardware has it; never float16, whose gradient scaler cannot serve two players that are updated in turn.

    Each process of a distributed run gets its own seed: with a common one all of them would draw the same noise.
    """
    torch.set_num_threads(1 if scale == "quick" else ALL_THREADS)
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
