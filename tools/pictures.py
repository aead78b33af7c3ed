"""Tell whether a picture that a cell draws is the one that its notebook stores, give or take what differs elsewhere.

nbval compares what a cell prints and passes over its pictures, as not a single pixel need be the same on another
machine. So pictures are compared coarsely, and `conftest.py` fails the cell where they clearly differ: in size, or both
in where their colours lie and in how much there is of each. (One of the two may change. A training that ends a little
differently moves points, and an axis that fits itself to them moves everything; a map by t-SNE moves whole islands.)

Measured: 69 pictures, drawn again as by a processor as old as SSE4, changed their size by at most 0.4 %, and their
colours by at most 0.07, though some were 0.57 apart in place. Of 383 pairs of pictures of one notebook, all but six
differ in size by more than 3 %, and of these six three in place and colours. What a caption says is for a claim to
prove: this only sees that a picture is not another one.
"""

import base64
import io

import numpy as np
from PIL import Image

LARGEST_RESIZE = 0.03  # the numbers on an axis may be wider
CELLS = 24  # along each side of the grid that says where
LARGEST_DISTANCE = 0.2
SHADES = 4  # of red, of green and of blue
LARGEST_CHANGE_OF_COLOURS = 0.1


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return how far two pictures differ in where their colours lie: 0 for the same, about 1 for unlike ones.

    Each picture becomes a grid of mean colours. What counts of a cell is how far its colour lies outside the range that
    the other picture has there and in the eight cells around, as a share of what is drawn: of what departs from the
    background.
    """
    grids = [np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX), float) / 255 for picture in (one, other)]
    apart = _outside(*grids) + _outside(*reversed(grids))
    drawn = sum(((grid - np.median(grid, axis=(0, 1))) ** 2).sum() for grid in grids)
    return float(np.sqrt(apart / max(drawn, 1e-9)))


def _outside(one: np.ndarray, other: np.ndarray) -> float:
    framed = np.pad(other, ((1, 1), (1, 1), (0, 0)), mode="edge")
    near = np.array([framed[row : row + CELLS, column : column + CELLS] for row in range(3) for column in range(3)])
    beyond = np.maximum(near.min(axis=0) - one, one - near.max(axis=0))
    return float((np.maximum(beyond, 0) ** 2).sum())


def change_of_colours(one: Image.Image, other: Image.Image) -> float:
    """Return which share of what is drawn has a colour that the other picture lacks: from 0 to 1.

    The commonest colour that both have is the background.
    """
    first, second = (_palette(picture) for picture in (one, other))
    background = np.minimum(first, second).max()
    return float(np.abs(first - second).sum() / 2 / max(1 - background, 1e-9))


def _palette(picture: Image.Image) -> np.ndarray:
    """Return the share of the pixels that have each of SHADES³ colours."""
    shades = np.asarray(picture).reshape(-1, 3) // (256 // SHADES)
    colours = shades @ np.array([SHADES**2, SHADES, 1])
    return np.bincount(colours, minlength=SHADES**3) / len(colours)


def difference(stored: str, drawn: str) -> str | None:
    """Say in words how two pictures, PNG in base64, clearly differ; None where they are much the same."""
    one, other = (Image.open(io.BytesIO(base64.b64decode(picture))) for picture in (stored, drawn))
    if any(abs(new / old - 1) > LARGEST_RESIZE for old, new in zip(one.size, other.size, strict=True)):
        sizes = " and ".join(f"{width} x {height}" for width, height in (one.size, other.size))
        return f"the stored picture and the one drawn differ in size: {sizes} pixels"
    one, other = one.convert("RGB"), other.convert("RGB")
    apart, change = distance(one, other), change_of_colours(one, other)
    if apart > LARGEST_DISTANCE and change > LARGEST_CHANGE_OF_COLOURS:
        return f"the stored picture is not the one drawn: {apart:.2f} apart, and {change:.0%} of the colours differ"
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
