"""Weights that come with the package, each with the record of the run that made them.

course_lib/weights/NAME/record.json            what was run, where, and what came out
course_lib/weights/NAME/NETWORK.safetensors    numbers and nothing that could run
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from course_lib import recipes, records
from course_lib.data import images
from course_lib.errors import InputError

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Pretrained:
    """Trained networks in evaluation mode, by name, and the record of the run that trained them."""

    name: str
    networks: Mapping[str, nn.Module]
    record: Mapping[str, Any]


def names() -> list[str]:
    """Return the names that `load` knows, in alphabetical order."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{records.FILE_NAME}"))


def read_record(name: str) -> dict[str, Any]:
    """Return the record of a shipped run: what was run, where, and what came out.

    Raises:
        InputError: there is no such name, or its record is damaged.
    """
    known = names()
    if name not in known:
        raise InputError(f"no weights are called {name!r}: use {', '.join(known) or 'none, this package has none'}")
    path = WEIGHTS / name / records.FILE_NAME
    try:
        record = records.read(path)
        record["identity"]["recipe"], record["images"], record["sha256"], record["tolerance"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}): install the package again") from error
    return record


def load(name: str) -> Pretrained:
    """Build the networks of a shipped run and give them their weights, on the CPU.

    Nothing is unpickled: a file is first compared with the hash in the record, then read as safetensors.

    Raises:
        InputError: there is no such name, or a file is missing, damaged or not the one of the record.
    """
    record = read_record(name)
    try:
        networks = recipes.find(record["identity"]["recipe"]).build(record["identity"], record["images"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{WEIGHTS / name / records.FILE_NAME} does not describe its networks ({error})") from error
    for network, expected in record["sha256"].items():
        path = WEIGHTS / name / f"{network}.safetensors"
        if not path.is_file():
            raise InputError(f"{path} is missing: install the package again")
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise InputError(
                f"{path} is damaged or not the file of its record (SHA-256 {found[:12]}…, recorded {expected[:12]}…): "
                "install the package again"
            )
        try:
            networks[network].load_state_dict(load_tensors(content))
        except (SafetensorError, RuntimeError, KeyError) as error:
            reason = str(error).split("\n")[0]
            raise InputError(f"{path} does not hold the weights of its network ({reason})") from error
    return Pretrained(name, {network: networks[network].eval() for network in record["sha256"]}, record)


def evaluate(name: str) -> dict[str, float]:
    """Measure a shipped run again, on the data that its record names.

    Returns:
        The metrics of the record, measured here and now in float32.

    Raises:
        InputError: as for `load`; or the data cannot be had, or are not those of the record.
    """
    pretrained = load(name)
    identity = pretrained.record["identity"]
    data = images.load(identity["data"], side_px=identity["side_px"], validation=identity["validation"])
    found = data.sha256()
    if found != identity["data_sha256"]:
        raise InputError(
            f"the pictures of {identity['data']} differ from those of the record (SHA-256 {found[:12]}…, "
            f"recorded {identity['data_sha256'][:12]}…): its numbers cannot be compared"
        )
    return recipes.find(identity["recipe"]).measure(pretrained.networks, data)


def ship(
    run: Path, name: str, *, command: str, networks: Sequence[str], metrics: Sequence[str], tolerance: float
) -> None:
    """Copy networks of a finished run, and its record with some of its metrics, to where `load` finds them.

    Args:
        run: output folder of the run.
        command: what the run was started with.
        tolerance: how far a metric measured elsewhere may lie from the record.

    Raises:
        InputError: the run is not finished, or has no such network or metric.
    """
    try:
        record = records.read(run / records.FILE_NAME)
        contents = {network: (run / f"{network}.safetensors").read_bytes() for network in networks}
        kept = {metric: record["metrics"][metric] for metric in metrics}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the run in {run} cannot be shipped: {error}") from error
    target = WEIGHTS / name
    target.mkdir(parents=True, exist_ok=True)
    for network, content in contents.items():
        (target / f"{network}.safetensors").write_bytes(content)
    hashes = {network: hashlib.sha256(content).hexdigest() for network, content in contents.items()}
    records.write(record | {"command": command, "metrics": kept, "sha256": hashes, "tolerance": tolerance}, target)
