"""Write, read and compare the record of a run: what was run, where, on what, and what came out."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from course_lib import __version__

FILE_NAME = "record.json"
LIBRARIES = ("torch", "torchvision", "accelerate", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Name the versions, the processor's kind and the git revision that a run was made with.

    The revision is that of the folder this package lies in, with "+" where files differ from it; None outside git.
    """
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {"course-lib": __version__} | {name: version(name) for name in LIBRARIES},
        "git_revision": _git_revision(),
    }


def write(record: dict[str, Any], folder: Path) -> Path:
    """Write `record.json` so that a reader finds the whole of it or the one before, never half.

    Raises:
        ValueError: a number in it is infinite or not a number; JSON has no word for these.
    """
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    path = folder / FILE_NAME
    partial = folder / f".{FILE_NAME}.partial"
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def read(path: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        ValueError: the file holds no record; names the file and what is wrong.
    """
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a record of a run ({error}): delete it and run again") from error
    if not isinstance(record, dict) or "metrics" not in record:
        raise ValueError(f"{path} is not a record of a run (it has no metrics): delete it and run again")
    return record


def differences(found: dict[str, float], recorded: dict[str, float], *, tolerance: float) -> list[str]:
    """List the metrics that are missing or further than `tolerance` from the record, each as one line."""
    lines = []
    for key, value in recorded.items():
        if key not in found:
            lines.append(f"{key}: not measured, recorded {value:.4f}")
        elif not abs(found[key] - value) <= tolerance:
            lines.append(f"{key}: measured {found[key]:.4f}, recorded {value:.4f}, tolerance {tolerance:g}")
    return lines


def _git_revision() -> str | None:
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            check=False,
            timeout=10,
        )  # an installed copy may lie inside somebody else's repository
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 and tracked.returncode == 0 else None
