"""A folder of pictures becomes arrays of pixels: each is checked, decoded once, and kept for the next time."""

import hashlib
import json
import logging
import os
import stat
import warnings
from collections import Counter
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from filelock import FileLock
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from platformdirs import user_cache_path
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from course_lib import files
from course_lib.errors import InputError

READ = {".jpg", ".jpeg", ".png"}
NOT_READ = {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jxl", ".svg", ".tif", ".tiff", ".webp"}
ONE_CLASS = "pictures"  # of what lies in no sub-folder
SMALLEST_PX = 8  # a shorter side of less shows nothing
MOST_PIXELS = 50_000_000  # a phone's 48 million pass; decoded, so many take 150 MB, or 200 MB if they have an alpha
LARGEST_SIDE_PX = 1024
TEST_EVERY = 10
MEMORY_LIMIT_MB = 1000.0
SKIPPED_LINES = 10
LAYOUT = 1  # of what is kept; another number makes everything kept before stale

logger = logging.getLogger(__name__)


class Skipped(NamedTuple):
    """A file that is not among the pictures: its path below the folder, and why."""

    path: str
    reason: str


class Pictures(NamedTuple):
    """Pictures as uint8 (n, 3, side, side), 0 to 255, their classes, and the files that gave none."""

    train_images: UInt8[Tensor, "train 3 side side"]
    train_labels: Int[Tensor, " train"]
    test_images: UInt8[Tensor, "test 3 side side"]
    test_labels: Int[Tensor, " test"]
    class_names: tuple[str, ...]
    skipped: tuple[Skipped, ...]


class _File(NamedTuple):
    """A file that may be a picture."""

    class_name: str
    path: Path
    name: str  # its path below the folder, in a form that can be printed
    size_bytes: int
    modified_ns: int


class _UnusableError(Exception):
    """A file gives no picture; the message says why."""


def read(folder: Path, side_px: int, *, crop: bool = True, memory_limit_mb: float = MEMORY_LIMIT_MB) -> Pictures:
    """Read the JPEG and PNG files of a folder and of all folders in it.

    A sub-folder of the folder is a class, and what lies beside the sub-folders is of the class "pictures". Of every
    class the second usable picture, the twelfth, and so on, in the order of their names, are the test pictures.

    A picture is turned as its EXIF data say, laid on white where it is transparent, and made RGB: grey three times,
    palettes and CMYK converted without colour profiles, 16 bits cut to 8. Then it is cropped to its central square and
    resized to the side, with antialiasing.

    A file that is broken, is none of the two formats inside, has a side below SMALLEST_PX or more than MOST_PIXELS
    pixels (which is known before anything is decoded), or is a link that leads out of the folder, is skipped, and a
    warning says so.

    The decoded pictures are kept in the user's cache folder, and used again until the name, size or date of a file
    changes. Where they take more than `memory_limit_mb` million bytes, they stay in that file, and the tensors are
    views of it: then the system reads from the disk what is asked for, and may forget it again.

    Args:
        side_px: the side of the pictures, at most LARGEST_SIDE_PX.
        crop: False squeezes a picture into a square instead of cropping it.

    Raises:
        InputError: there is no such folder, or it cannot be read, or too few of its files are usable, or there is no
            room for the decoded pictures; says what to do.
    """
    if not 1 <= side_px <= LARGEST_SIDE_PX:
        raise InputError(f"side_px={side_px} is no size for pictures of a folder: use 1 to {LARGEST_SIDE_PX}")
    if not memory_limit_mb >= 0:
        raise InputError(f"memory_limit_mb={memory_limit_mb} is no limit: use 0 or more millions of bytes")
    root, candidates, refused = _listed(folder)
    shape = (len(candidates), 3, side_px, side_px)
    fits = len(candidates) * 3 * side_px**2 <= memory_limit_mb * 1e6
    try:
        rows, found = _kept(root, candidates, side_px, crop=crop, shape=shape)
        if fits:
            rows = rows.clone()
    except OSError as error:
        if not fits:
            raise InputError(
                f"the decoded pictures of {folder} take {np.prod(shape) / 1e6:,.0f} MB, more than memory_limit_mb="
                f"{memory_limit_mb:g}, and cannot be kept in {_cache()} ({error.strerror or error}): free space there, "
                "set XDG_CACHE_HOME to another folder, raise the limit, or use a smaller side_px"
            ) from error
        memory = BytesIO()
        found = _decode(candidates, memory, side_px, crop=crop)
        rows = torch.frombuffer(memory.getbuffer(), dtype=torch.uint8).reshape(shape)
    skipped = tuple(sorted([*refused, *(Skipped(*pair) for pair in found["skipped"])]))
    _report(folder, skipped)
    train, test = torch.tensor(found["train"]), torch.tensor(found["test"])
    if not len(test):
        raise InputError(
            f"{folder} has {len(train)} usable pictures ({len(skipped)} files were skipped), but no class has two, one "
            "to learn from and one to test with: put more JPEG or PNG files there"
        )
    images = rows[: len(train)], rows[len(rows) - len(test) :]
    return Pictures(images[0], train, images[1], test, tuple(found["classes"]), skipped)


def _listed(folder: Path) -> tuple[Path, list[_File], list[Skipped]]:
    """Find the folder itself, what may be a picture in it, and what looks like one but must not be read.

    The second is in the order of classes and names.
    """
    try:
        root = folder.expanduser().resolve(strict=True)
        with os.scandir(root):  # `os.walk` would say nothing
            pass
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"the folder of pictures {str(folder)!r} cannot be read ({reason}): name a folder with JPEG or PNG files"
        ) from error
    found: list[_File] = []
    refused: list[Skipped] = []

    def refuse(path: str | Path, reason: str) -> None:
        refused.append(Skipped(_printable(os.path.relpath(path, root)), reason))

    def unreadable(error: OSError) -> None:
        refuse(error.filename, f"cannot be read ({error.strerror})")

    for place, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (path := Path(place, name)).is_symlink():
                refuse(path, "is a link to a folder")
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in READ | NOT_READ:
                continue
            if path.suffix.lower() in NOT_READ:
                refuse(path, "is of another format: save it as JPEG or PNG")
                continue
            try:
                inside, state = path.resolve().is_relative_to(root), path.stat()
            except (OSError, RuntimeError) as error:  # the latter of a link to itself
                refuse(path, f"cannot be read ({getattr(error, 'strerror', None) or error})")
                continue
            if not inside:
                refuse(path, "is a link that leads out of the folder")
            elif not stat.S_ISREG(state.st_mode):  # to open a pipe would be to wait for ever
                refuse(path, "is no file")
            else:
                below = path.relative_to(root)
                class_name = _printable(below.parts[0]) if len(below.parts) > 1 else ONE_CLASS
                found.append(_File(class_name, path, _printable(str(below)), state.st_size, state.st_mtime_ns))
    if not found:
        _report(folder, refused)
        raise InputError(
            f"{folder} has no JPEG or PNG files (.jpg, .jpeg, .png): put some there, or name another folder"
        )
    return root, sorted(found), refused


def _kept(
    root: Path, candidates: list[_File], side_px: int, *, crop: bool, shape: tuple[int, ...]
) -> tuple[UInt8[Tensor, "n 3 side side"], dict[str, Any]]:
    """Return the decoded pictures, mapped from the cache folder; decode them where they are missing, stale or damaged.

    One folder and side has one entry: a file of pixels, and one that says what it was made of and its SHA-256.
    """
    entry = _digest([str(root), side_px, crop])[:32]
    made_of = _digest(
        [
            LAYOUT, SMALLEST_PX, MOST_PIXELS, TEST_EVERY, PIL.__version__, torchvision.__version__,
            [[file.class_name, str(file.path), file.size_bytes, file.modified_ns] for file in candidates],
        ]
    )  # fmt: skip
    _cache().mkdir(parents=True, exist_ok=True)
    pixels, index = _cache() / f"{entry}.pixels", _cache() / f"{entry}.json"
    with FileLock(_cache() / f"{entry}.lock"):
        found = _undamaged(index, pixels, made_of)
        if found is None:
            partial = _cache() / f".{entry}.partial"
            try:
                with partial.open("wb") as out:
                    found = _decode(candidates, out, side_px, crop=crop)
                files.flush_to_disk(partial)
                found |= {"made_of": made_of, "pixels_sha256": files.sha256_of(partial)}
                partial.replace(pixels)
            finally:
                partial.unlink(missing_ok=True)
            files.write_sealed(index, found)
        # Private: what is written into the tensor stays out of the file.
        rows = torch.from_file(str(pixels), shared=False, size=int(np.prod(shape)), dtype=torch.uint8)
    return rows.reshape(shape), found


def _undamaged(index: Path, pixels: Path, made_of: str) -> dict[str, Any] | None:
    """Return what the index says, if it was made of the same files and the pixels are those that it speaks of."""
    try:
        found = files.read_sealed(index)
    except files.DamagedError:
        return None
    if found["made_of"] != made_of or not pixels.is_file() or files.sha256_of(pixels) != found["pixels_sha256"]:
        return None
    return found


def _decode(candidates: list[_File], out: BufferedIOBase, side_px: int, *, crop: bool) -> dict[str, Any]:
    """Write the pixels of one picture after another: the training pictures from the front, the test ones from the back.

    So both are whole pieces of one array without anybody knowing before how many files are usable; between them is
    room for those that are not. Returns the labels in the order of the rows, the classes, and what was skipped.
    """
    room, row_bytes = len(candidates), 3 * side_px**2
    out.seek(room * row_bytes - 1)
    out.write(b"\0")  # the whole length, also of what stays empty
    usable: Counter[str] = Counter()
    skipped: list[Skipped] = []
    train: list[str] = []
    test: list[str] = []
    for file in tqdm(candidates, desc="decoding pictures", unit="", leave=False):
        try:
            row = _pixels(file.path, side_px, crop=crop)
        except _UnusableError as error:
            skipped.append(Skipped(file.name, str(error)))
            continue
        is_test = usable[file.class_name] % TEST_EVERY == 1
        usable[file.class_name] += 1
        part = test if is_test else train
        part.append(file.class_name)
        out.seek((room - len(test) if is_test else len(train) - 1) * row_bytes)
        out.write(row.numpy().tobytes())
    classes = sorted(usable)
    return {
        "train": [classes.index(name) for name in train],
        "test": [classes.index(name) for name in reversed(test)],
        "classes": classes,
        "skipped": skipped,
    }


def _pixels(path: Path, side_px: int, *, crop: bool) -> UInt8[Tensor, "3 {side_px} {side_px}"]:
    """Decode one picture.

    Raises:
        _UnusableError: it cannot be decoded, or must not be.
    """
    too_many = f"claims more than {MOST_PIXELS:,} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of details that make no picture unusable
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("JPEG", "PNG")) as opened:  # reads the header only
                if opened.width * opened.height > MOST_PIXELS:
                    raise _UnusableError(too_many)
                if min(opened.size) < SMALLEST_PX:
                    sides = f"{opened.width} x {opened.height}"
                    raise _UnusableError(f"has {sides} pixels, at least {SMALLEST_PX} x {SMALLEST_PX} are needed")
                # A JPEG may be decoded at an eighth, a quarter or half its size, many times faster.
                opened.draft(None, (2 * side_px, 2 * side_px))
                picture = _rgb(ImageOps.exif_transpose(opened))
    except (_UnusableError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _UnusableError(too_many) from error
    except PIL.UnidentifiedImageError as error:
        raise _UnusableError("is no JPEG or PNG inside, whatever its name says") from error
    except Exception as error:  # what a decoder raises on damaged bytes is not documented, and of many classes
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise _UnusableError(f"cannot be read ({reason})") from error
    if crop:
        picture = transforms.center_crop(picture, [min(picture.size)])
    return transforms.pil_to_tensor(transforms.resize(picture, [side_px, side_px]))


def _rgb(picture: Image.Image) -> Image.Image:
    """Make a picture of any mode RGB, on white where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits of grey: PIL would clip them at 255
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 256).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _report(folder: Path, skipped: tuple[Skipped, ...] | list[Skipped]) -> None:
    for path, reason in skipped[:SKIPPED_LINES]:
        logger.warning("skipped %s: %s", path, reason)
    if rest := skipped[SKIPPED_LINES:]:
        logger.warning("skipped %d more files of %s", len(rest), folder)


def _cache() -> Path:
    return user_cache_path("course-lib") / "folders"


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
