"""Runs whose weights are too large to come with the package: the record of each, and some pictures that it drew.

course_lib/recorded/pictured/NAME/record.json           what was run, where, and what came out
course_lib/recorded/pictured/NAME/step-00001500.png     drawn after so many updates, pixel by pixel, without gaps
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from course_lib import files, records
from course_lib.errors import InputError

FOLDER = Path(__file__).parent / "recorded" / "pictured"
COLUMNS = 8  # pictures in a row of a file


class RecordedRun(NamedTuple):
    """The record of a run, and pictures, 0 to 255, by the number of updates after which they were drawn.

    The pictures of all numbers are of the same latents, in the same order.
    """

    record: records.Record
    pictures: Mapping[int, UInt8[Tensor, "n 3 side side"]]


def names() -> list[str]:
    """Return the names of the runs that are kept, in alphabetical order."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{records.FILE_NAME}"))


def read(name: str) -> RecordedRun:
    """Return what is kept of a run.

    Raises:
        InputError: there is none of this name, or a file of it is damaged.
    """
    if name not in names():
        raise InputError(f"no run is kept as {name!r}: use {', '.join(names())}")
    folder = FOLDER / name
    record = records.read(folder / records.FILE_NAME)
    side = record["images"]["side_px"]
    found = {int(path.stem.removeprefix("step-")): _read(path, side) for path in sorted(folder.glob("step-*.png"))}
    return RecordedRun(record, found)


def keep(run: Path, name: str, pictures: Mapping[int, Float[Tensor, "n 3 side side"]]) -> Path:
    """Copy the record of a finished run, with what it drew (in [-1, 1]), to where `read` finds it; return the folder.

    Raises:
        InputError: the run has no record, or the number of pictures is no multiple of COLUMNS.
    """
    record = records.read(run / records.FILE_NAME)
    for images in pictures.values():
        if len(images) % COLUMNS:
            raise InputError(f"found {len(images)} pictures: give a multiple of {COLUMNS}, which fills whole rows")
    target = FOLDER / name
    target.mkdir(parents=True, exist_ok=True)
    for step, images in pictures.items():
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        rows = [torch.cat(list(row), dim=2) for row in pixels.split(COLUMNS)]  # (3, side, columns * side) each
        sheet = torch.cat(rows, dim=1).permute(1, 2, 0)
        Image.fromarray(sheet.numpy()).save(target / f"step-{step:08d}.png", optimize=True)
    records.write(record, target)
    return target


def _read(path: Path, side_px: int) -> UInt8[Tensor, "n 3 {side_px} {side_px}"]:
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            wide, high = opened.size
            fits = opened.mode == "RGB" and wide == COLUMNS * side_px and high % side_px == 0
            content = bytearray(opened.tobytes()) if fits else None
    except (OSError, SyntaxError, UnidentifiedImageError) as error:  # a broken PNG is a SyntaxError to Pillow
        raise files.DamagedError(f"{path} is no PNG file that can be read ({error})") from error
    if content is None:
        raise files.DamagedError(
            f"{path} has {wide} x {high} pixels ({opened.mode}), and {COLUMNS} colour pictures of {side_px} px stand "
            "in a row: keep the run again"
        )
    sheet = torch.frombuffer(content, dtype=torch.uint8).reshape(high // side_px, side_px, COLUMNS, side_px, 3)
    return sheet.permute(0, 2, 4, 1, 3).reshape(-1, 3, side_px, side_px)
