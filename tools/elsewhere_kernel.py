"""Runs in a kernel before the first cell: moves every seed, writes claims down, proves what is simulated.

`elsewhere.py` starts it and says in COURSE_ELSEWHERE, as JSON, what to do:

log      file to which one JSON line is added for each claim, and one for the proof
offset   what is added to every seed
measure  true: a claim that fails is written down like any other and stops nothing; false: it fails as it always does
"""

import ctypes
import json
import numbers
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

VARIABLE = "COURSE_ELSEWHERE"


def start() -> None:
    """Do what COURSE_ELSEWHERE asks for; the last thing written is the proof, without which the run does not count."""
    settings = json.loads(os.environ[VARIABLE])
    log = Path(settings["log"])
    if settings["offset"]:
        move_seeds(settings["offset"])
    write_claims_down(log, measure=settings["measure"])
    add_line(log, {"proof": proof()})


def add_line(log: Path, line: dict[str, Any]) -> None:
    """Append one line of JSON."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# ── Seeds ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def moved(seed: Any, offset: int) -> Any:
    """Return a seed with the offset added; a generator that stands for a seed was moved where it was made."""
    if isinstance(seed, numbers.Integral) and not isinstance(seed, bool):
        return int(seed) + offset
    if isinstance(seed, str):
        return f"{seed}+{offset}"
    if isinstance(seed, (list, tuple)) and seed:
        return [moved(seed[0], offset), *seed[1:]]
    return seed


def move_seeds(offset: int) -> None:
    """Put in front of every function and class that takes a seed one that adds the offset.

    scikit-learn and SciPy make their generators through numpy.random, and Accelerate seeds through the functions
    below, so that they are moved with them. A library that does neither would not be moved: the table of
    `elsewhere.py` shows a claim whose number no offset changes.
    """
    import numpy as np
    import torch

    def function(module: Any, name: str) -> None:
        original = getattr(module, name)

        def seeded(*arguments: Any, **named: Any) -> Any:
            named = {key: moved(value, offset) if key in ("seed", "a") else value for key, value in named.items()}
            return original(*[moved(value, offset) for value in arguments[:1]], *arguments[1:], **named)

        setattr(module, name, seeded)

    def kind(module: Any, name: str, argument: str) -> None:
        original = getattr(module, name)

        def begin(self: Any, *arguments: Any, **named: Any) -> None:
            named = {key: moved(value, offset) if key == argument else value for key, value in named.items()}
            original.__init__(self, *[moved(value, offset) for value in arguments[:1]], *arguments[1:], **named)

        setattr(module, name, type(name, (original,), {"__init__": begin, "__module__": original.__module__}))

    function(random, "seed")
    for name in ("seed", "default_rng"):
        function(np.random, name)
    kind(np.random, "RandomState", "seed")
    kind(np.random, "SeedSequence", "entropy")
    for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"):
        kind(np.random, name, "seed")

    original_random = random.Random

    class Random(original_random):
        def __new__(cls, x: Any = None) -> Any:
            return original_random.__new__(cls, moved(x, offset))

        def __init__(self, x: Any = None) -> None:
            super().__init__(moved(x, offset))

    random.Random = Random

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            return super().manual_seed(moved(seed, offset))

    torch.Generator = Generator
    # What draws before anybody has seeded: torch's own generators begin with a fixed seed.
    torch.default_generator.manual_seed(torch.default_generator.initial_seed() + offset)
    function(torch, "manual_seed")
    torch.random.manual_seed = torch.manual_seed


# ── Claims ────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_claims_down(log: Path, *, measure: bool) -> None:
    """Let `course_lib.claims.claim` write down what it is given; the notebook imports it from there afterwards."""
    from course_lib import claims

    original = claims.claim

    def claim(fact: str, measured: float, **bounds: Any) -> None:
        import torch
        from threadpoolctl import threadpool_info

        pools = [pool["num_threads"] for pool in threadpool_info()]
        add_line(log, {"claim": fact, "measured": float(measured), "threads": [torch.get_num_threads(), *pools]})
        if not measure:
            original(fact, measured, **bounds)

    claims.claim = claim


# ── Proof ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def proof() -> dict[str, Any]:
    """Ask each library which instructions it uses in this very process."""
    import scipy.linalg  # noqa: F401 - loads SciPy's own OpenBLAS
    import torch
    from numpy._core._multiarray_umath import __cpu_features__ as features
    from threadpoolctl import threadpool_info

    spoken = what_the_libraries_say()
    isa = [line.split("cpu,isa:")[1] for line in spoken if "cpu,isa:" in line]
    modes = [word.removeprefix("CNR:") for line in spoken for word in line.split() if word.startswith("CNR:")]
    return {
        "torch": torch.backends.cpu.get_cpu_capability(),
        "onednn": isa[0] if isa else None,
        "mkl": modes[0] if modes else None,
        "openblas": sorted({pool["architecture"] for pool in threadpool_info() if "architecture" in pool}),
        "numpy": sorted(name for name, used in features.items() if used),
        "seconds_since_epoch": round(time.time()),
    }


def what_the_libraries_say() -> list[str]:
    """Let MKL multiply and oneDNN convolve aloud, and return the lines: they write past Python, to the descriptor."""
    import torch

    library = ctypes.CDLL(None)
    library.fflush(None)
    with tempfile.TemporaryFile() as said:
        stdout = os.dup(1)
        os.dup2(said.fileno(), 1)
        try:
            mkl, mkldnn = torch.backends.mkl, torch.backends.mkldnn
            with mkldnn.verbose(mkldnn.VERBOSE_ON), mkl.verbose(mkl.VERBOSE_ON):
                torch.ones(300, 300) @ torch.ones(300, 300)
                torch.nn.functional.conv2d(torch.ones(8, 3, 16, 16), torch.ones(4, 3, 3, 3))
            library.fflush(None)
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        said.seek(0)
        return said.read().decode(errors="replace").splitlines()
