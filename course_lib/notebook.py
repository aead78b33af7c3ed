"""What a notebook shows besides numbers and pictures."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import Markdown, display
from matplotlib.axes import Axes


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
