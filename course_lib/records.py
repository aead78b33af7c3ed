"""Write, read and compare the record of a run: what was run, where, on what, and what came out."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn
from typing_extensions import TypedDict

from course_lib import __version__, files
from course_lib.errors import InputError
from course_lib.files import DamagedError

FILE_NAME = "record.json"
WEIGHTS = Path(__file__).parent / "weights"  # what comes with the package, one folder for each name
LIBRARIES = ("torch", "torchvision", "accelerate", "numpy", "scikit-learn")
T = TypeVar("T")
checked = with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))


@checked
class Identity(TypedDict):
    """What was asked for. On one machine, with the same versions, two runs of one identity give the same numbers."""

    recipe: str
    scale: Literal["quick", "full"]
    seed: int
    settings: dict[str, Any]
    data_sha256: str


@checked
class Versions(TypedDict):
    """What a run was made with. The revision is None outside git, and ends in "+" where files differ from it."""

    python: str
    machine: str
    versions: dict[str, str]
    git_revision: str | None


@checked
class Environment(Versions):
    """And what was resolved there: bfloat16 on one machine, float32 on another."""

    device: str
    precision: str
    threads: int
    processes: int


@checked
class Form(TypedDict):
    """The form of the pictures: the networks are built for it."""

    channels: Annotated[int, Field(ge=1, le=4)]
    side_px: Annotated[int, Field(ge=1, le=4096)]
    classes: Annotated[int, Field(ge=1, le=100_000)]


@checked
class Record(TypedDict):
    """All that is kept of a run besides its weights: `sha256` has the hash of each file of weights.

    Metrics are those of the last epoch, accuracies in fractions; `history` has a line of means for each report of each
    training; `earlier_versions` is empty unless the run was continued under other versions; `judged_by`, where it is
    there, has the hash of each network that metrics were measured by.
    """

    identity: Identity
    images: Form
    metrics: dict[str, float]
    history: dict[str, Annotated[list[dict[str, float]], Field(min_length=1)]]
    resumed_from_step: int
    seconds: float
    environment: Environment
    earlier_versions: list[Versions]
    judged_by: NotRequired[dict[str, str]]
    sha256: Annotated[dict[str, str], Field(min_length=1)]


def write(record: Record, folder: Path) -> Path:
    """Write `record.json` so that a reader finds the whole of it or the one before, never half.

    Raises:
        ValueError: a number in it is infinite or not a number; JSON has no word for these.
    """
    path = folder / FILE_NAME
    files.write_sealed(path, record)
    return path


def read(path: Path) -> Record:
    """Read the record of a run.

    Raises:
        DamagedError: the file holds no record, or was changed since it was written.
    """
    return read_as(Record, path)


def read_as(kind: type[T], path: Path) -> T:
    """Read a sealed file whose contents have the form of a TypedDict.

    Raises:
        DamagedError: as for `read`.
    """
    content = files.read_sealed(path)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedError(f"{path} is not what it should be ({where}: {first['msg']})") from error


def give_weights(network: nn.Module, record: Record, folder: Path, name: str) -> None:
    """Give a network the weights NAME.safetensors that a run left in a folder beside its record.

    Nothing is unpickled: the file is first compared with the hash in the record, then read as safetensors.

    Raises:
        InputError: the file is missing, damaged, not the one of the record, or does not fit the network.
    """
    path, expected = folder / f"{name}.safetensors", record["sha256"][name]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from error
    if (found := files.sha256(content)) != expected:
        raise DamagedError(
            f"{path} is damaged or not the file of its record (SHA-256 {found[:12]}…, recorded {expected[:12]}…)"
        )
    try:
        network.load_state_dict(load_tensors(content))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path} does not hold the weights of its network ({reason})") from error


def versions() -> Versions:
    """Name the versions, the processor's kind and the git revision that a run was made with.

    The revision is that of the folder this package lies in, with "+" where files differ from it; None outside git.
    """
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {"course-lib": __version__} | {name: version(name) for name in LIBRARIES},
        "git_revision": _git_revision(),
    }


def differences(found: Mapping[str, float], recorded: dict[str, float], *, tolerance: float) -> list[str]:
    """List the metrics that are missing or further than `tolerance` from the record, each as one line.

    Of what is larger than 1 the tolerance is a share: of a distance of 3, three times as much.
    """
    lines = []
    for key, value in recorded.items():
        if key not in found:
            lines.append(f"{key}: not measured, recorded {value:.4f}")
        elif not abs(found[key] - value) <= (allowed := tolerance * max(1.0, abs(value))):
            lines.append(f"{key}: measured {found[key]:.4f}, recorded {value:.4f}, tolerance {allowed:g}")
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
