"""Save a run so that it can be continued with the result that it would have had."""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from course_lib.errors import InputError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
AVERAGE = "average.safetensors"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment: where it lies, after which step, and the progress that was written down with it."""

    folder: Path
    step: int
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training, newest first, in one folder.

    Accelerate saves networks, optimisers and random states. Around that stands what it leaves open: each checkpoint
    is written beside its final place, flushed to the disk and renamed, so that a killed process leaves a whole one or
    none; a manifest holds the SHA-256 of each file, so that a damaged one is noticed and the one before is used; and
    a random state that did not come back is an error, not a line in a log.

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
            problem = _damage(folder)
            if problem:
                logger.warning("checkpoint %s is damaged (%s): trying the one before", folder, problem)
                continue
            manifest = json.loads((folder / MANIFEST).read_text())
            check_identity(manifest["identity"], self.identity, where=folder)
            return Checkpoint(folder, manifest["step"], manifest["progress"])
        return None

    def save(self, accelerator: Accelerator, step: int, average: nn.Module | None, progress: dict[str, Any]) -> None:
        """Write the checkpoint of a moment, then remove all but the newest two."""
        final = self.folder / f"step-{step:08d}"
        partial = self.folder / f".partial-{final.name}"
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial / "accelerate"))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            if average is not None:
                save_file({key: value.contiguous() for key, value in average.state_dict().items()}, partial / AVERAGE)
            files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
            manifest = {
                "step": step,
                "identity": self.identity,
                "progress": progress,
                "random_state": _random_state_sha256(),
                "files": {path.relative_to(partial).as_posix(): _sha256(path) for path in files},
            }
            (partial / MANIFEST).write_text(json.dumps(manifest))
            for path in [*files, partial / MANIFEST, partial / "accelerate", partial]:
                flush_to_disk(path)
            shutil.rmtree(final, ignore_errors=True)  # only a damaged one can lie there
            partial.rename(final)
            flush_to_disk(self.folder)
            for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
                shutil.rmtree(old)
        accelerator.wait_for_everyone()

    def restore(self, accelerator: Accelerator, checkpoint: Checkpoint, average: nn.Module | None) -> None:
        """Put networks, optimisers, their average and all random states back to that moment.

        Raises:
            RuntimeError: the random state did not come back; what followed would not be the same run.
        """
        accelerator.load_state(str(checkpoint.folder / "accelerate"))
        if average is not None:
            average.load_state_dict(load_file(checkpoint.folder / AVERAGE))
        expected = json.loads((checkpoint.folder / MANIFEST).read_text())["random_state"]
        if accelerator.is_main_process and _random_state_sha256() != expected:
            raise RuntimeError(f"the random state saved in {checkpoint.folder} did not come back: delete that folder")


def check_identity(found: dict[str, Any], needed: dict[str, Any], *, where: Path) -> None:
    """Compare what a folder holds with what is asked for.

    Raises:
        InputError: they differ; names the first difference.
    """
    for key in [*needed, *found]:
        if found.get(key) != needed.get(key):
            raise InputError(
                f"{where} holds a run with {key}={found.get(key)!r}, but this one has {key}={needed.get(key)!r}: "
                "use another output folder, or the options of that run"
            )


def flush_to_disk(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, survives a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder for this, and does not need it
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damage(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            if _sha256(folder / name) != expected:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError) as error:
        return str(error)
    return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _random_state_sha256() -> str:
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
