"""What a notebook shows besides numbers and pictures."""

import html
import inspect
import io
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from course_lib.errors import InputError

LARGEST_ANIMATION_BYTES = 400_000


def show_source(thing: object) -> None:
    """Show the code of a function or class that the course imports, with its syntax coloured."""
    display(Markdown(f"```python\n{inspect.getsource(thing)}```"))


def refreshed(draw: Callable[..., Axes]) -> Callable[..., None]:
    """Return a function that draws with `draw` and shows the picture in place of the one before.

    While a training goes on one picture changes, instead of a hundred that follow each other. Like a progress bar, it
    is silent when the environment variable `TQDM_DISABLE` is set.
    """
    shown = None

    def show(*arguments: Any) -> None:
        nonlocal shown
        if os.environ.get("TQDM_DISABLE"):
            return
        figure = draw(*arguments).figure
        if shown is None:
            shown = display(figure, display_id=True)
        else:
            shown.update(figure)
        plt.close(figure)  # or the cell would show it once more at its end

    return show


def frame(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    """Return a figure as it looks now, as pixels: one frame of an animation.

    Draw all frames into one figure, and close it after the last.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def animation(
    frames: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    *,
    alt: str,
    seconds: float = 0.12,
    last_seconds: float = 2.0,
    colours: int = 32,
    largest_bytes: int = LARGEST_ANIMATION_BYTES,
) -> None:
    """Show pictures one after the other, again and again, as a GIF that needs nothing from elsewhere.

    Whoever has asked their system for less motion sees the last picture, standing still, and anybody can fold the
    animation away. Where no HTML is shown, on paper for instance, the last picture stands for all.

    Args:
        frames: pictures of one size, as `frame` returns them.
        alt: what there is to see, for readers who cannot see it; give the same words as the cell's text alternative.
        seconds, last_seconds: how long each picture stays, and the last one; in steps of 0.01.
        colours: all pictures share so many at most (2 to 256).
        largest_bytes: of the GIF; the page holds a third more.

    Raises:
        InputError: there are fewer than two frames, they differ in size, or the GIF is too large.
    """
    pictures = _pictures(frames)
    encoded = _as_gif(pictures, [seconds] * (len(pictures) - 1) + [last_seconds], colours)
    if len(encoded) > largest_bytes:
        raise InputError(
            f"found an animation of {len(encoded):,} bytes, allowed are {largest_bytes:,}: take fewer frames, "
            "smaller ones or fewer colours"
        )
    still = io.BytesIO()
    pictures[-1].save(still, format="PNG", optimize=True)
    png, gif = (b64encode(data).decode() for data in (still.getvalue(), encoded))
    page = f"""\
<details open>
<summary>Animation (fold it away to stop it)</summary>
<picture>
<source media="(prefers-reduced-motion: reduce)" srcset="data:image/png;base64,{png}">
<img src="data:image/gif;base64,{gif}" alt="{html.escape(alt)}">
</picture>
</details>"""
    words = f"<an animation of {len(pictures)} pictures>"
    display({"text/html": page, "image/png": png, "text/plain": words}, raw=True)


def _pictures(frames: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Image.Image]:
    if len(frames) < 2:
        raise InputError(f"found {len(frames)} frames: an animation needs at least 2")
    pictures = [Image.fromarray(pixels) for pixels in frames]
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise InputError(f"found frames of {sizes[0]} and {sizes[1]} px: give all one size")
    return pictures


def _as_gif(pictures: Sequence[Image.Image], seconds: Sequence[float], colours: int) -> bytes:
    """Return an endless GIF. One palette for all pictures, or colours that stand still would flicker."""
    sample = np.concatenate([*pictures[:: max(1, len(pictures) // 8)], pictures[-1]])
    # Maximum coverage keeps what is small and bright, such as points; a few rounds of k-means then smooth large areas.
    palette = Image.fromarray(sample).quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    encoded = io.BytesIO()
    milliseconds = [round(1000 * duration) for duration in seconds]
    first.save(encoded, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0, optimize=False)
    return encoded.getvalue()
