"""The output folder of a run: refused when in use or holding something else, and left whole by a kill."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from filelock import FileLock, Timeout
from matplotlib.axes import Axes
from safetensors.torch import save
from torch import Tensor, nn
from typing_extensions import TypedDict

from course_lib import files, plotting, records, runtime
from course_lib.errors import InputError
from course_lib.training.checkpoint import Checkpoints, check_identity

logger = logging.getLogger(__name__)

LOCK = ".lock"
MARKER = "run.json"


@records.checked
class Marker(TypedDict):
    """What says that a folder is that of a run, from its first moment on."""

    identity: records.Identity
    versions: list[records.Versions]


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps its marker, checkpoints, weights, pictures and record.

    Args:
        identity: what the run is: recipe, scale, seed, settings, data. A folder belongs to one identity.
        resume: whether to go on from what lies here.
        earlier_versions: those of the sittings before this one, where they were others.
    """

    path: Path
    identity: records.Identity
    resume: bool
    earlier_versions: list[records.Versions]

    def checkpoints(self, name: str) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints" / name, self.identity)

    def finished_record(self) -> records.Record | None:
        """Return the record of the run if it came to its end here; it is the last file that a run writes."""
        path = self.path / records.FILE_NAME
        if not self.resume or not path.is_file():
            return None
        record = records.read(path)
        check_identity(record["identity"], self.identity, where=path)
        return record

    def save_weights(self, networks: dict[str, nn.Module]) -> dict[str, str]:
        """Write NAME.safetensors for each network: numbers and nothing that could run. Return the SHA-256 of each."""
        hashes = {}
        for name, network in networks.items():
            content = save({key: value.contiguous() for key, value in network.state_dict().items()})
            files.write(self.path / f"{name}.safetensors", content)
            hashes[name] = files.sha256(content)
        return hashes

    def save_picture(self, name: str, ax: Axes) -> None:
        """Write NAME.png."""
        path = self.path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        ax.figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(ax.figure)

    def save_samples(self, step: int, images: Tensor) -> None:
        """Write what a generator draws after some step."""
        self.save_picture(f"samples/step-{step:08d}", plotting.image_grid(images, columns=10))


def check_free(path: Path, *, resume: bool) -> None:
    """Refuse a path that cannot become the folder of a run, before any work is done and without touching it.

    Raises:
        InputError: it is a file, or it holds something that is no run, or a run and `resume` is false.
    """
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"the output folder {path} is a file: name a folder that is empty or does not exist")
        holds = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    except OSError as error:
        raise InputError(f"the output folder {path} cannot be read ({error.strerror}): name another one") from error
    holds -= {LOCK, f".{MARKER}.partial"}
    if holds and MARKER not in holds:
        raise InputError(
            f"the output folder {path} holds no run of the course, but {sorted(holds)[0]}: "
            "name a folder that is empty or does not exist"
        )
    if holds and not resume:
        raise InputError(
            f"the output folder {path} is not empty: add --resume to go on with the run in it, or name another folder"
        )


@contextmanager
def open_run_folder(path: Path, *, identity: records.Identity, resume: bool) -> Iterator[RunFolder]:
    """Make the folder and hold it for this process alone; the lock is the operating system's and dies with it.

    Raises:
        InputError: the folder cannot be written, is in use, belongs to another run, or is refused by `check_free`.
    """
    check_free(path, resume=resume)
    runtime.wait_for_everyone()  # nobody writes before all processes have looked
    earlier = []
    with ExitStack() as stack:
        if runtime.is_main_process():
            try:
                path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(path / LOCK, timeout=0))
                earlier = _mark(path / MARKER, identity)
            except Timeout as error:
                raise InputError(
                    f"the output folder {path} is in use by another process: wait for it, or name another folder"
                ) from error
            except OSError as error:
                raise InputError(
                    f"the output folder {path} cannot be written ({error.strerror}): name a folder of your own"
                ) from error
        runtime.wait_for_everyone()
        yield RunFolder(path, identity, resume, earlier)


def _mark(path: Path, identity: records.Identity) -> list[records.Versions]:
    """Write down whose folder this is and which versions its run was made with; return those before today's."""
    now, earlier = records.versions(), []
    if path.is_file():
        marker = records.read_as(Marker, path)
        check_identity(marker["identity"], identity, where=path)
        earlier = [one for one in marker["versions"] if one != now]
        for one in earlier:
            changed = [f"{key} {value!r}, now {now[key]!r}" for key, value in one.items() if now[key] != value]
            logger.warning("this run was begun with other versions: %s", "; ".join(changed))
    files.write_sealed(path, {"identity": identity, "versions": [*earlier, now]})
    return earlier
