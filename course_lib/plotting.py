"""Arrays in, matplotlib Axes out."""

import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

# Okabe and Ito's palette: told apart by readers with any kind of colour vision, on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Probability of "real": pale orange where a detective says fake, white at one half, pale blue where it says real.
REAL_OR_FAKE = LinearSegmentedColormap.from_list("real_or_fake", ["#F3AE78", "#FFFFFF", "#86BCE0"])
# Of a box in the graph of a network, whose columns and rows are 1 apart.
HALF_WIDTH, HALF_HEIGHT = 0.42, 0.33


def image_grid(
    images: ArrayLike, *, columns: int = 10, titles: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw images (n, channels, height, width) with pixels in [-1, 1] side by side, row by row.

    Args:
        titles: one short word above each image.

    Raises:
        ValueError: the array has another shape, or another number of titles.
    """
    images = np.asarray(images, dtype=np.float32)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"found images of shape {images.shape}: needed (n, 1 or 3, height, width)")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"found {len(titles)} titles for {len(images)} images: give one each")
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    gap = max(1, height // 8) + (height // 3 if titles is not None else 0)
    side_gap = max(1, width // 8)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + side_gap) - side_gap, channels), np.nan)
    corners = []
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + side_gap)
        canvas[top : top + height, left : left + width] = (image.transpose(1, 2, 0) + 1) / 2
        corners.append((top, left))
    if ax is None:
        _, ax = plt.subplots(
            figsize=(min(9.0, 0.75 * columns), min(9.0, 0.75 * columns) * canvas.shape[0] / canvas.shape[1])
        )
    if channels == 1:
        ax.imshow(np.ma.masked_invalid(canvas[..., 0]), cmap="gray", vmin=0, vmax=1)
    else:
        opaque = np.isfinite(canvas).all(axis=2, keepdims=True)
        ax.imshow(np.concatenate([np.nan_to_num(canvas), opaque], axis=2).clip(0, 1))
    if titles is not None:
        for (top, left), title in zip(corners, titles, strict=True):
            ax.text(left + width / 2, top - 1, title, ha="center", va="bottom", fontsize="small")
    ax.set_axis_off()
    return ax


def accuracy_curves(curves: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """Draw accuracy (fraction) over epochs, one colour for each name.

    Each value is (epochs,) or (runs, epochs): of several runs each is drawn thinly and their mean boldly.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4))
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        epochs = np.arange(1, runs.shape[1] + 1)
        if len(runs) > 1:
            ax.plot(epochs, runs.T, color=colour, alpha=0.3, linewidth=0.8)
        ax.plot(epochs, runs.mean(axis=0), color=colour, linewidth=2, label=name)
    ax.set_xlabel("epoch")
    ax.set_ylabel("test accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
    return ax


def points(clouds: Mapping[str, ArrayLike], *, limit: float = 3.0, size: float = 7.0, ax: Axes | None = None) -> Axes:
    """Draw clouds of points in the plane, each (n, 2), one colour for each name, on equal axes from -limit to limit.

    Real points come first and are blue, fakes second and orange. Of several clouds there is a legend.

    Args:
        size: of a point, its area in square points.

    Raises:
        ValueError: a cloud has another shape.
    """
    ax = _plane(limit, ax)
    for (name, cloud), colour in zip(clouds.items(), COLOURS, strict=False):
        x, y = _columns(name, cloud)
        ax.scatter(x, y, s=size, color=colour, edgecolors="white", linewidths=0.25, label=name, zorder=2)
    if len(clouds) > 1:
        ax.legend(loc="upper right", markerscale=2, handletextpad=0.1, borderpad=0.3, framealpha=0.9)
    return ax


def lattice(*, limit: float = 3.0, side: int = 61) -> NDArray[np.float32]:
    """Return side x side points evenly spread over the plane from -limit to limit: (side * side, 2), row by row.

    The first point is at the lower left; `field` draws what a network says of each.
    """
    along = np.linspace(-limit, limit, side, dtype=np.float32)
    x, y = np.meshgrid(along, along)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def field(probabilities: ArrayLike, *, limit: float = 3.0, ax: Axes | None = None) -> Axes:
    """Colour the plane from -limit to limit by a probability of "real": blue near 1, white at 1/2, orange near 0.

    Args:
        probabilities: one for each point of `lattice` with the same limit, in its order.

    Raises:
        ValueError: their number is no square.
    """
    flat = np.asarray(probabilities, dtype=float).ravel()
    side = math.isqrt(flat.size)
    if side < 2 or side**2 != flat.size:
        raise ValueError(f"found {flat.size} probabilities: give one for each point of a square lattice")
    ax = _plane(limit, ax)
    reach = limit * side / (side - 1)  # a pixel's middle, not its edge, is where it was measured
    ax.imshow(
        flat.reshape(side, side),
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        cmap=REAL_OR_FAKE,
        vmin=0,
        vmax=1,
        interpolation="bilinear",
        zorder=0,
    )
    return _plane(limit, ax)  # `imshow` sets limits of its own


def _plane(limit: float, ax: Axes | None) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(4.5, 4.5))
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return ax


def _columns(name: str, cloud: ArrayLike) -> NDArray[np.float64]:
    """Return the two coordinates of a cloud, (2, n)."""
    cloud = np.asarray(cloud, dtype=float)
    if cloud.ndim != 2 or cloud.shape[1] != 2:
        raise ValueError(f"found {name!r} of shape {cloud.shape}: needed (n, 2)")
    return cloud.T


def network_graph(
    labels: Mapping[str, str], arrows: Sequence[tuple[str, str]], *, mark: Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Draw the steps of a network as boxes from top to bottom, with branches side by side.

    A step stands below all those that feed it. It keeps the column of the first of them where that place is free;
    an arrow that passes other steps goes round them on the right.

    Args:
        labels: what to write in a box, by the name of the step, in the order of computing.
        arrows: pairs of names, from where to where.
        mark: names of steps to colour.

    Raises:
        ValueError: an arrow leads from or to a step that has no label, or backwards.
    """
    order = {name: place for place, name in enumerate(labels)}
    for source, target in arrows:
        if source not in order or target not in order or order[source] >= order[target]:
            raise ValueError(f"found the arrow {source!r} -> {target!r}: both need a label, the first one earlier")
    at: dict[str, tuple[int, int]] = {}  # name -> (column, row)
    for name in labels:
        feeders = [at[source] for source, target in arrows if target == name]
        row = max((feeder_row for _, feeder_row in feeders), default=-1) + 1
        column = min((feeder_column for feeder_column, _ in feeders), default=0)
        while (column, row) in at.values():
            column += 1
        at[name] = (column, row)
    columns, rows = max(column for column, _ in at.values()) + 1, max(row for _, row in at.values()) + 1
    if ax is None:
        _, ax = plt.subplots(figsize=(2.6 * columns + 0.8, 0.72 * rows))
    for name, (column, row) in at.items():
        corner = (column - HALF_WIDTH, row - HALF_HEIGHT)
        colour = COLOURS[1] if name in mark else "#444444"
        ax.add_patch(Rectangle(corner, 2 * HALF_WIDTH, 2 * HALF_HEIGHT, facecolor="white", edgecolor=colour))
        ax.text(column, row, labels[name], ha="center", va="center", fontsize=8, color=colour)
    style = {"color": "#777777", "linewidth": 1.2}
    for source, target in arrows:
        *corners, turn, end = _route(at[source], at[target], at.values())
        if corners:
            ax.plot(*zip(*corners, turn, strict=True), **style)
        ax.annotate("", end, turn, arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, **style})
    ax.set_xlim(-0.55, columns - 0.2)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_axis_off()
    return ax


def _route(start: tuple[int, int], end: tuple[int, int], boxes: Iterable[tuple[int, int]]) -> list[tuple[float, float]]:
    """Return the corners of the way from one box to another, all given by column and row."""
    (column, row), (to_column, to_row) = start, end
    if to_row == row + 1:
        return [(column, row + HALF_HEIGHT), (to_column, to_row - HALF_HEIGHT)]
    enter = (to_column + HALF_WIDTH, to_row)
    passed = [box_column for box_column, box_row in boxes if row < box_row < to_row and box_column >= column]
    if column > to_column and not passed:
        return [(column, row + HALF_HEIGHT), (column, to_row), enter]
    lane = max([column, to_column, *passed]) + 0.58
    return [(column + HALF_WIDTH, row), (lane, row), (lane, to_row), enter]
