"""What a notebook shows besides numbers and pictures."""

import inspect

from IPython.display import Markdown, display


def show_source(thing: object) -> None:
    """Show the code of a function or class that the course imports, with its syntax coloured."""
    display(Markdown(f"```python\n{inspect.getsource(thing)}```"))
