"""Colour pictures drawn by a formula: flowers and apples, as many and as large as wanted, without a download."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from course_lib.errors import InputError

PETAL_CLASSES = ("3 petals", "4 petals", "5 petals", "6 petals")
APPLE_CLASSES = ("red", "green", "yellow")
AT_ONCE_PIXELS = 1 << 18
NUMBERS = 16  # random ones for each picture, of which a formula takes what it needs
BROKEN = "broken.jpg"

# Of n pictures at once: numbers are (n, 1, 1), planes broadcast to (n, side, side), colours to (3, n, side, side).
Planes = NDArray
Colours = NDArray


class Drawn(NamedTuple):
    """Pictures, 0 to 255, and their classes."""

    images: UInt8[Tensor, "n 3 side side"]
    labels: Int[Tensor, " n"]


def petals(count: int, *, side_px: int = 16, seed: int = 0) -> Drawn:
    """Draw flowers with three to six petals, seen from above; the class is the number of petals less three.

    In polar coordinates around the centre of a flower its edge with k petals is

        R(angle) = size * (0.38 + 0.62 |cos(k (angle - turn) / 2)|),

    and its heart is a disc of radius 0.3 size. Hue, size, place, turn, shade and background vary. An edge takes one
    pixel to fade, by the distance from it: so pictures of all sides are smooth, and show the same flowers.

    Picture i depends on the seed and on i alone. Picture i is of class i modulo 4.
    """
    return _draw(_petals, len(PETAL_CLASSES), count, side_px, seed)


def apples(count: int, *, side_px: int = 16, seed: int = 0) -> Drawn:
    """Draw red, green and yellow apples, lit from above; the class is the colour.

    In polar coordinates the edge of an apple is an ellipse with a dent for the stem and a smaller one below,

        R(angle) = size * (1 - 0.28 exp(-(from top / 0.45)^2) - 0.1 exp(-(from below / 0.4)^2)),

    with the angles from straight up and from straight down. It is shaded as a ball is: by the cosine of the angle
    between the light and the surface, and with a bright spot. Hue, size, place, width, light, cheek, stem, background
    and whether there is a leaf vary.

    Picture i depends on the seed and on i alone. Picture i is of class i modulo 3.
    """
    return _draw(_apples, len(APPLE_CLASSES), count, side_px, seed)


def save_apples(folder: Path, count: int = 100, *, side_px: int = 64, seed: int = 0) -> None:
    """Save apples as JPEG files of several shapes, and one file more, `broken.jpg`, that ends in the middle.

    Up to a quarter of the height or of the width is cut off, half on either side, as photos are not all square. The
    folder is made if need be; files of the same names are replaced.
    """
    images = apples(count, side_px=side_px, seed=seed).images.permute(0, 2, 3, 1).numpy()
    margins = np.random.default_rng(seed).integers(-(side_px // 8), side_px // 8 + 1, size=count)
    folder.mkdir(parents=True, exist_ok=True)
    for number, (image, margin) in enumerate(zip(images, margins, strict=True)):
        high, wide = max(margin, 0), max(-margin, 0)
        picture = image[high : side_px - high, wide : side_px - wide]
        Image.fromarray(picture).save(folder / f"apple_{number:04}.jpg", quality=92)
    whole = (folder / "apple_0000.jpg").read_bytes()
    (folder / BROKEN).write_bytes(whole[: len(whole) // 2])


def _draw(formula: Callable[..., Colours], classes: int, count: int, side_px: int, seed: int) -> Drawn:
    """Draw some pictures at a time, so that the planes of all of them need not be in memory at once."""
    if count < 1 or side_px < 1:
        raise InputError(f"count={count} pictures of side_px={side_px} cannot be drawn: use at least 1 of each")
    labels = torch.arange(count) % classes
    numbers = np.random.default_rng(seed).random((count, NUMBERS))
    # Pixel centres, x to the right and y up, in [-1, 1].
    along = (np.arange(side_px) + 0.5) * (2 / side_px) - 1
    x, y = along[None, None, :], -along[None, :, None]
    images = torch.empty(count, 3, side_px, side_px, dtype=torch.uint8)
    at_once = max(1, AT_ONCE_PIXELS // side_px**2)
    for start in range(0, count, at_once):
        some = slice(start, start + at_once)
        columns = [column[:, None, None] for column in numbers[some].T]
        colours = formula(columns, labels[some].numpy()[:, None, None], x, y, 2 / side_px)
        images[some] = torch.from_numpy(np.rint(255 * colours.clip(0, 1)).astype(np.uint8)).transpose(0, 1)
    return Drawn(images, labels)


def _petals(numbers: list[Planes], label: NDArray, x: Planes, y: Planes, pixel: float) -> Colours:
    u = iter(numbers)
    k = label + 3
    size, turn = _between(next(u), 0.68, 0.9), 2 * np.pi * next(u)
    x, y = x - _between(next(u), -0.1, 0.1), y - _between(next(u), -0.1, 0.1)
    hue, strong, light = next(u), _between(next(u), 0.55, 0.95), _between(next(u), 0.85, 1.0)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)

    ground = _hsv(_between(next(u), 0.22, 0.42), _between(next(u), 0.4, 0.7), _between(next(u), 0.25, 0.5) + 0.12 * y)
    half = k * (angle - turn) / 2
    lobe = np.abs(np.cos(half))
    edge = size * (0.38 + 0.62 * lobe)
    # Distance from the edge along a ray, made shorter where the edge is steep.
    slope = size * 0.62 * k / 2 * np.abs(np.sin(half)) / np.maximum(radius, 0.3 * size)
    petal = _cover((edge - radius) / np.hypot(1, slope), pixel)
    out = radius / size
    # Paler towards the tips, darker where two petals meet and near the heart.
    shade = light * (0.72 + 0.28 * lobe**0.7) * (0.8 + 0.2 * np.clip(out * 1.6, 0, 1))
    picture = _over(ground, _hsv(0.72 + 0.43 * hue, strong * (1.15 - 0.55 * out), shade), petal)

    heart = 0.3 * size
    bump = 1 - 0.35 * np.clip((x + y + heart) / (2 * heart), 0, 1) + 0.15
    heart_colour = _hsv(_between(next(u), 0.08, 0.15), 0.9, 0.85 * bump.clip(0, 1.15))
    return _over(picture, heart_colour, _cover(heart - radius, pixel))


def _apples(numbers: list[Planes], label: NDArray, x: Planes, y: Planes, pixel: float) -> Colours:
    u = iter(numbers)
    size, width = _between(next(u), 0.56, 0.7), _between(next(u), 0.96, 1.12)
    x, y = x - _between(next(u), -0.1, 0.1), y - _between(next(u), -0.16, 0.0)
    warm, bright = next(u), _between(next(u), 0.62, 0.92)

    # A wall, a table below it, and the shadow on the table.
    table = _cover(-0.35 - y, 0.1)
    wall = _hsv(0.08 + 0.5 * warm, 0.18, bright + 0.06 * y)
    picture = _over(wall, _hsv(0.08 + 0.03 * warm, 0.42, 0.72 * bright), table)
    shadow = np.exp(-((x / (0.85 * size)) ** 2) - ((y + 0.93 * size) / 0.16) ** 2)
    picture = picture * (1 - 0.6 * shadow)

    # The body, and its surface: that of a ball, squeezed to the outline.
    radius, from_top = np.hypot(x / width, y), np.abs(np.arctan2(x, y))
    top, below = np.exp(-((from_top / 0.45) ** 2)), np.exp(-(((np.pi - from_top) / 0.4) ** 2))
    edge = size * (1 - 0.28 * top - 0.1 * below)
    out = radius / edge
    toward = np.sqrt(1 - out.clip(0, 1) ** 2)
    side = _between(next(u), -0.65, 0.65)
    across, up = x / width / edge, y / edge
    lit = (side * across + 0.55 * up + 0.75 * toward) / np.sqrt(side**2 + 0.55**2 + 0.75**2)
    centres, spread = np.array([0.985, 0.26, 0.145])[label], np.array([0.03, 0.03, 0.012])[label]
    hue, strong = centres + spread * (2 * next(u) - 1), np.array([0.9, 0.72, 0.78])[label]
    value = np.array([0.82, 0.75, 0.93])[label] * _between(next(u), 0.85, 1.05)
    cheek = next(u) * np.exp(-((across - side) ** 2 + (up - 0.1) ** 2) / 0.35)  # a warmer patch on the sunny side
    skin = _hsv(hue - 0.045 * cheek, strong, value * (0.38 + 0.68 * lit.clip(0, 1)))
    spot = 0.75 * np.exp(-((across - 0.6 * side) ** 2 + (up - 0.42) ** 2) / 0.035)
    dent = 1 - 0.45 * np.exp(-((across / 0.28) ** 2) - ((up - 0.86) / 0.22) ** 2)
    picture = _over(picture, _over(skin, np.ones_like(skin), spot) * dent, _cover(edge - radius, pixel))

    # The stem bends to one side; the leaf is what two circles have in common.
    bend, foot, tip = _between(next(u), -0.5, 0.5), 0.6 * size, _between(next(u), 1.05, 1.3) * size
    height = (y - foot) / (tip - foot)
    middle = bend * 0.3 * size * height.clip(0, 1) ** 2
    thick = 0.05 * (0.8 + 0.5 * height.clip(0, 1))
    stem = _cover(np.minimum(thick - np.abs(x - middle), np.minimum(y - foot, tip - y)), pixel)
    picture = _over(picture, _hsv(0.07, 0.65, 0.38 + 0.15 * (x > middle)), stem)

    leaf = next(u)
    to_right = np.where(bend > 0, -1.0, 1.0)
    slant, length = _between(leaf, 0.25, 0.7), 0.26
    along = to_right * x * np.cos(slant) + (y - 0.85 * size) * np.sin(slant) - length
    aside = (y - 0.85 * size) * np.cos(slant) - to_right * x * np.sin(slant)
    lens = 1.25 * length - np.hypot(along, np.abs(aside) + 0.75 * length)
    green = _hsv(_between(next(u), 0.27, 0.36), 0.75, 0.5 + 0.16 * (aside > 0))
    return _over(picture, green, _cover(lens, pixel) * (leaf > 0.3))


def _between(number: Planes, low: float, high: float) -> Planes:
    return low + (high - low) * number


def _cover(inside: Planes, pixel: float) -> Planes:
    """How much of a pixel is covered whose centre lies so far inside an edge: half of it on the edge itself."""
    return (inside / pixel + 0.5).clip(0, 1)


def _over(below: Colours, above: Colours, cover: Planes) -> Colours:
    return below + cover * (above - below)


def _hsv(hue: Planes | float, saturation: Planes | float, value: Planes) -> Colours:
    """Turn hue (in turns), saturation and value (in [0, 1]) into red, green and blue, a new first axis.

    Source: A. R. Smith (1978), Color Gamut Transform Pairs, in the form with one formula for the three channels.
    """
    hue, saturation, value = np.broadcast_arrays(hue, saturation, value)
    places = (np.array([5, 3, 1]).reshape(3, 1, 1, 1) + 6 * hue) % 6
    return value * (1 - saturation.clip(0, 1) * np.minimum(places, 4 - places).clip(0, 1))
