"""Write files so that they are there whole or not at all, and notice when one is not what was written."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from course_lib.errors import InputError

SEAL = "seal"


class DamagedError(InputError):
    """A file is not what was written, or cannot be read."""


def write(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a machine that lost its power, finds the whole of it or the one before."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    flush_to_disk(partial)
    partial.replace(path)
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, survives a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder for this, and does not need it
    # Windows flushes only what was opened for writing; elsewhere a folder can only be opened for reading.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write plain JSON values together with their SHA-256.

    Raises:
        ValueError: a number in them is infinite or not a number; JSON has no word for these.
    """
    write(path, _sealed(content))


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` wrote.

    Raises:
        DamagedError: the file is missing, is something else, or was changed by as little as a space.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from error
    try:
        content = json.loads(found)
        content.pop(SEAL)
        if _sealed(content) == found:
            return content
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise DamagedError(f"{path} is not what was written there: its contents do not match their seal")


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits, without reading the whole of it into memory."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _sealed(content: dict[str, Any]) -> bytes:
    bare = json.dumps(content, sort_keys=True, allow_nan=False).encode()
    return (json.dumps(content | {SEAL: sha256(bare)}, indent=1, allow_nan=False) + "\n").encode()
