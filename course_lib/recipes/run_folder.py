"""The output folder of a run: refused when in use or holding something else, and left whole by a kill."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from matplotlib.axes import Axes
from safetensors.torch import save_file
from torch import nn

from course_lib import records, runtime
from course_lib.errors import InputError
from course_lib.files import flush_to_disk
from course_lib.training.checkpoint import Checkpoints, check_identity

LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps its checkpoints, weights, curve and record.

    Args:
        identity: what the run is: recipe, scale, seed, settings, data. A folder belongs to one identity.
        resume: whether to go on from what lies here.
    """

    path: Path
    identity: dict[str, Any]
    resume: bool

    def checkpoints(self, name: str) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints" / name, self.identity)

    def finished_record(self) -> dict[str, Any] | None:
        """Return the record of the run if it came to its end here; it is the last file that a run writes."""
        path = self.path / records.FILE_NAME
        if not self.resume or not path.is_file():
            return None
        try:
            record = records.read(path)
        except ValueError as error:
            raise InputError(str(error)) from error
        check_identity(record["identity"], self.checkpoints("").identity, where=path)
        return record

    def save_weights(self, name: str, network: nn.Module) -> None:
        """Write `name`.safetensors: the numbers of a network and nothing that could run."""
        final, partial = self.path / f"{name}.safetensors", self.path / f".{name}.safetensors.partial"
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, partial)
        flush_to_disk(partial)
        partial.replace(final)

    def save_picture(self, name: str, ax: Axes) -> None:
        """Write `name`.png."""
        ax.figure.savefig(self.path / f"{name}.png", dpi=150, bbox_inches="tight")


def check_free(path: Path, *, resume: bool) -> None:
    """Refuse a path that cannot become the folder of a run, before any work is done and without touching it.

    Raises:
        InputError: it is a file, or it holds something and `resume` is false.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"the output folder {path} is a file: name a folder that is empty or does not exist")
    try:
        holds = [entry.name for entry in path.iterdir() if entry.name != LOCK] if path.is_dir() else []
    except OSError as error:
        raise InputError(f"the output folder {path} cannot be read ({error.strerror}): name another one") from error
    if holds and not resume:
        raise InputError(
            f"the output folder {path} is not empty (it holds {sorted(holds)[0]}): "
            "add --resume to go on with the run in it, or name another folder"
        )


@contextmanager
def open_run_folder(path: Path, *, identity: dict[str, Any], resume: bool) -> Iterator[RunFolder]:
    """Make the folder and hold it for this process alone; the lock is the operating system's and dies with it.

    Raises:
        InputError: the folder cannot be written, is in use, or is refused by `check_free`.
    """
    check_free(path, resume=resume)
    with ExitStack() as stack:
        if runtime.is_main_process():
            try:
                path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(path / LOCK, timeout=0))
            except Timeout as error:
                raise InputError(
                    f"the output folder {path} is in use by another process: wait for it, or name another folder"
                ) from error
            except OSError as error:
                raise InputError(
                    f"the output folder {path} cannot be written ({error.strerror}): name a folder of your own"
                ) from error
        runtime.wait_for_everyone()
        yield RunFolder(path, identity, resume)
