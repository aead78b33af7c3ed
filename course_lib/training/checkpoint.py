"""Save a run so that it can be continued with the result that it would have had."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file

from course_lib import runtime
from course_lib.errors import InputError
from course_lib.files import DamagedError, flush_to_disk, read_sealed, sha256, write_sealed
from course_lib.training.average import RunningAverage

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
AVERAGE = "average.safetensors"
RANDOM_STATES = "random_states.safetensors"
KEPT = 2


class RandomStateError(InputError):
    """Random states that were saved did not come back; what follows would not be the same run."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment: where it lies, after which step, and what was written down with it.

    Args:
        progress: what the monitor needs to go on.
        random_states: the SHA-256 of each random generator's state, by name, for each process.
    """

    folder: Path
    step: int
    progress: dict[str, Any]
    random_states: list[dict[str, str]]


class Checkpoints:
    """The checkpoints of one training, newest first, in one folder.

    Accelerate saves networks, optimisers and most random states. Around that stands what it leaves open: each
    checkpoint is written beside its final place, flushed to the disk and renamed, so that a killed process leaves a
    whole one or none; a sealed manifest holds the SHA-256 of each file, so that a damaged one is noticed and the one
    before is used; and a random state that did not come back is an error, not a line in a log.

    Args:
        folder: where they lie; made when the first one is saved.
        identity: what the run is (recipe, settings, seed, data). A checkpoint of another run is refused.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))  # as it reads back: tuples become lists

    def newest(self) -> Checkpoint | None:
        """Find the newest intact checkpoint, or None.

        Raises:
            InputError: it belongs to another run.
        """
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                manifest = _read_manifest(folder)
            except DamagedError as problem:
                logger.warning("checkpoint %s is damaged (%s): trying the one before", folder, problem)
                continue
            check_identity(manifest["identity"], self.identity, where=folder)
            return Checkpoint(folder, manifest["step"], manifest["progress"], manifest["random_states"])
        return None

    def save(
        self, accelerator: Accelerator, step: int, average: RunningAverage | None, progress: dict[str, Any]
    ) -> None:
        """Write the checkpoint of a moment, then remove all but the newest two."""
        final = self.folder / _name(step)
        partial = self.folder / f".partial-{final.name}"
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial / "accelerate"))
        random_states = gather_object([_random_state_hashes()])  # of every process, and so all have saved theirs
        if accelerator.is_main_process:
            if average is not None:
                save_file({key: value.contiguous() for key, value in average.state_dict().items()}, partial / AVERAGE)
            if unsaved := runtime.random_states_unknown_to_accelerate():
                save_file(unsaved, partial / RANDOM_STATES)
            hashes = _hashes(partial)
            for path in [*map(partial.joinpath, hashes), partial / "accelerate"]:
                flush_to_disk(path)
            manifest = {"step": step, "identity": self.identity, "progress": progress}
            write_sealed(partial / MANIFEST, manifest | {"random_states": random_states, "files": hashes})
            shutil.rmtree(final, ignore_errors=True)  # only a damaged one can lie there
            partial.rename(final)
            flush_to_disk(self.folder)
            for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
                shutil.rmtree(old)
        accelerator.wait_for_everyone()

    def restore(self, accelerator: Accelerator, checkpoint: Checkpoint, average: RunningAverage | None) -> None:
        """Put networks, optimisers, their average and all random states back to that moment.

        Raises:
            RandomStateError: a random state did not come back.
            InputError: another number of processes saved it; each has its own random state.
        """
        saved, running = len(checkpoint.random_states), accelerator.num_processes
        if saved != running:
            raise InputError(
                f"{checkpoint.folder} was saved by a run of {saved} processes, but this one has {running}: "
                f"start {saved}, or use another output folder"
            )
        accelerator.load_state(str(checkpoint.folder / "accelerate"))
        if average is not None:
            average.load_state_dict(load_file(checkpoint.folder / AVERAGE))
        if (checkpoint.folder / RANDOM_STATES).exists():
            runtime.set_random_states(load_file(checkpoint.folder / RANDOM_STATES))
        found, expected = _random_state_hashes(), checkpoint.random_states[accelerator.process_index]
        lost = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
        if lost:
            raise RandomStateError(
                f"the random state of {', '.join(lost)} saved in {checkpoint.folder} did not come back: "
                "resume with the kind and number of devices that the run began on, or use another output folder"
            )


def check_identity(found: dict[str, Any], needed: dict[str, Any], *, where: Path) -> None:
    """Compare what a folder holds with what is asked for.

    Raises:
        InputError: they differ; names the first difference.
    """
    found, needed = _flat(found), _flat(needed)
    for key in [*needed, *found]:
        if found.get(key) != needed.get(key):
            raise InputError(
                f"{where} holds a run with {key}={found.get(key)!r}, but this one has {key}={needed.get(key)!r}: "
                "use another output folder, or the options of that run"
            )


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity.items() if key != "settings"} | identity.get("settings", {})


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return what was written down with a checkpoint of which nothing is missing, added or changed.

    Raises:
        DamagedError: names what is wrong.
    """
    manifest = read_sealed(folder / MANIFEST)
    if manifest.keys() != {"step", "identity", "progress", "random_states", "files"}:
        raise DamagedError("its manifest is that of another version of this package")
    try:
        found = _hashes(folder)
    except OSError as error:
        raise DamagedError(str(error)) from error
    for name in {**manifest["files"], **found}:
        if found.get(name) != manifest["files"].get(name):
            raise DamagedError(f"{name} is not what was written")
    if folder.name != _name(manifest["step"]):
        raise DamagedError(f"it is that of step {manifest['step']}")
    return manifest


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint but the manifest, by its path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST]
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()) for path in paths}


def _random_state_hashes() -> dict[str, str]:
    """Return the SHA-256 of the state of each random generator of this process, by its name."""
    states = runtime.random_states()
    # Python's state is made of plain numbers, those of NumPy and torch are or hold arrays.
    return {
        name: sha256(json.dumps(state, default=lambda numbers: numbers.tolist()).encode())
        for name, state in states.items()
    }
