"""Trained networks with the record of their run: those that come with the package, and those of your own runs.

course_lib/weights/NAME/record.json            what was run, where, and what came out
course_lib/weights/NAME/NETWORK.safetensors    numbers and nothing that could run
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import files, recipes, records
from course_lib.data.images import ImageForm
from course_lib.errors import InputError
from course_lib.recipes.settings import from_record
from course_lib.recipes.shared import judged_by
from course_lib.records import WEIGHTS

# How far a metric measured again may lie from its record. One of 10,000 test images is 0.0001; another processor adds
# up in another order, and may judge a few differently.
TOLERANCE = 0.0005


@dataclass(frozen=True)
class Pretrained:
    """Trained networks in evaluation mode, by name, and the settings and record of the run that trained them."""

    source: str
    networks: Mapping[str, nn.Module] = field(repr=False)
    settings: Any
    record: records.Record = field(repr=False)


def names() -> list[str]:
    """Return the names of the weights that come with the package, in alphabetical order."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{records.FILE_NAME}"))


def read_record(source: str | Path) -> records.Record:
    """Return the record of a run: what was run, where, and what came out.

    Args:
        source: one of `names()`, or the output folder of a finished run.

    Raises:
        InputError: there is neither of this name, or the record is damaged.
    """
    return records.read(_folder(source) / records.FILE_NAME)


def load(source: str | Path) -> Pretrained:
    """Build the networks of a run and give them their weights, on the CPU.

    The weights are read by `records.give_weights`, which unpickles nothing.

    Args:
        source: as for `read_record`.

    Raises:
        InputError: as for `read_record`, or a file is missing, damaged or not the one of the record.
    """
    folder, record = _folder(source), read_record(source)
    family = recipes.find(record["identity"]["recipe"]).family
    settings = from_record(family.Settings, record["identity"]["settings"])
    form = ImageForm(**record["images"])
    networks = {}
    for name in record["sha256"]:
        try:
            networks[name] = family.NETWORKS[name](settings, form).eval()
        except (KeyError, RuntimeError) as error:
            raise InputError(f"no network {name!r} can be built from the record in {folder} ({error})") from error
        records.give_weights(networks[name], record, folder, name)
    return Pretrained(str(source), networks, settings, record)


def evaluate(source: str | Path) -> dict[str, float]:
    """Measure a run again, on the data that its record names.

    Returns:
        The metrics of the networks that are there, measured here and now in float32.

    Raises:
        InputError: as for `load`; or the data cannot be had, or are not those of the record.
    """
    trained = load(source)
    return _measure(trained, trained.networks)


def misses(found: Mapping[str, float], record: records.Record) -> list[str]:
    """List what was measured and lies further from the record than `TOLERANCE`, each as one line."""
    recorded = {key: value for key, value in record["metrics"].items() if key in found}
    return records.differences(found, recorded, tolerance=TOLERANCE)


def sample(source: str | Path, count: int, *, seed: int) -> Float[Tensor, "count channels side side"]:
    """Draw pictures, with pixels in [-1, 1], with the networks of a run.

    Raises:
        InputError: as for `load`, or none of the networks draws, or the seed is none.
    """
    recipes.check_seed(seed)
    trained = load(source)
    family = recipes.find(trained.record["identity"]["recipe"]).family
    with torch.inference_mode():
        return family.sample(trained.settings, trained.networks, count, seed=seed)


def ship(run: Path, name: str, *, networks: Sequence[str]) -> None:
    """Copy networks of a finished run, and its record with the metrics that they have, to where `load` finds them.

    Raises:
        InputError: the run is not finished, has no such network, or does not repeat its record here.
    """
    trained = load(run)
    record = trained.record
    missing = [network for network in networks if network not in trained.networks]
    if missing:
        raise InputError(f"{run} holds no {missing[0]}: use {', '.join(trained.networks)}")
    found = _measure(trained, {network: trained.networks[network] for network in networks})
    if missed := misses(found, record):
        raise InputError(f"the run in {run} does not repeat its record: {'; '.join(missed)}")
    target = WEIGHTS / name
    target.mkdir(parents=True, exist_ok=True)
    for network in networks:
        files.write(target / f"{network}.safetensors", (run / f"{network}.safetensors").read_bytes())
    shipped = {
        "metrics": {key: record["metrics"][key] for key in found},
        "sha256": {network: record["sha256"][network] for network in networks},
    }
    records.write(record | shipped, target)


def _measure(trained: Pretrained, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    identity = trained.record["identity"]
    family = recipes.find(identity["recipe"]).family
    prepared = family.prepare(trained.settings, seed=identity["seed"])
    found = prepared.data.sha256()
    if found != identity["data_sha256"]:
        raise InputError(
            f"the pictures of {trained.settings.data} differ from those of the record (SHA-256 {found[:12]}…, "
            f"recorded {identity['data_sha256'][:12]}…): its numbers cannot be compared"
        )
    if (judges := judged_by(prepared)) != trained.record.get("judged_by", {}):
        raise InputError(
            f"the run was judged by {trained.record.get('judged_by', {})}, and here it would be by {judges}: "
            "its numbers cannot be compared"
        )
    return family.measure(trained.settings, prepared, networks)


def _folder(source: str | Path) -> Path:
    if str(source) in names():
        return WEIGHTS / source
    folder = Path(source)
    try:
        if (folder / records.FILE_NAME).is_file():
            return folder
        what = "a run that is not finished" if folder.is_dir() else "no folder"
    except OSError as error:
        what = f"no folder ({error.strerror})"
    raise InputError(
        f"no weights are called {str(source)!r}, and it is {what}: use {', '.join(names()) or 'the folder of a run'}, "
        "or the output folder of a finished run"
    )
