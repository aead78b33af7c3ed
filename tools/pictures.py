"""Tell whether a picture that a cell draws is the one that its notebook stores, give or take what differs elsewhere.

nbval compares what a cell prints and passes over its pictures, as not a single pixel need be the same on another
machine. So pictures are compared coarsely, and `conftest.py` fails the cell where they clearly differ.
"""

import base64
import io

import numpy as np
from PIL import Image

CELLS = 24  # along each side of the grid
LARGEST_DISTANCE = 0.35
LARGEST_RESIZE = 0.03  # the numbers on an axis may be wider


def fingerprint(picture: Image.Image) -> np.ndarray:
    """Return the mean colour of each cell of a grid, from 0 to 1, as (CELLS, CELLS, 3)."""
    small = picture.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX)
    return np.asarray(small, float) / 255


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far two fingerprints differ, as a share of what is drawn: 0 for the same, about 1 for unlike ones.

    What counts of a cell is how far its colour lies outside the range that the other picture has there and in the eight
    cells around, so a line may move by a cell. What is drawn is what departs from the background.
    """
    apart = _outside(one, other) + _outside(other, one)
    drawn = sum(((picture - np.median(picture, axis=(0, 1))) ** 2).sum() for picture in (one, other))
    return float(np.sqrt(apart / max(drawn, 1e-9)))


def _outside(one: np.ndarray, other: np.ndarray) -> float:
    framed = np.pad(other, ((1, 1), (1, 1), (0, 0)), mode="edge")
    near = np.array([framed[row : row + CELLS, column : column + CELLS] for row in range(3) for column in range(3)])
    beyond = np.maximum(near.min(axis=0) - one, one - near.max(axis=0))
    return float((np.maximum(beyond, 0) ** 2).sum())


def difference(stored: str, drawn: str) -> str | None:
    """Say in words how two pictures, PNG in base64, clearly differ; None where they are much the same."""
    one, other = (Image.open(io.BytesIO(base64.b64decode(picture))) for picture in (stored, drawn))
    if any(abs(new / old - 1) > LARGEST_RESIZE for old, new in zip(one.size, other.size, strict=True)):
        sizes = " and ".join(f"{width} x {height}" for width, height in (one.size, other.size))
        return f"the stored picture and the one drawn differ in size: {sizes} pixels"
    apart = distance(fingerprint(one), fingerprint(other))
    if apart > LARGEST_DISTANCE:
        return f"the stored picture is not the one drawn: {apart:.2f} apart, more than {LARGEST_DISTANCE}"
    return None


def compare(stored: list[dict], drawn: list[dict]) -> str | None:
    """Say how the pictures among the stored outputs of a cell differ from those now drawn; None if all is well."""
    before, now = (
        [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
        for outputs in (stored, drawn)
    )
    if len(before) != len(now):
        return f"pictures stored: {len(before)}, drawn: {len(now)}"
    return next(filter(None, map(difference, before, now)), None)
