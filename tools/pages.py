"""Tables of the generated pages."""

from collections.abc import Iterable

# What would be read as Markdown, HTML or mathematics inside a cell, and how it is shown as it is. `&` comes first.
SPECIAL = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "*": "&#42;", "$": "&#36;"}


def safe(text: str) -> str:
    """Return a text that a page shows as it is, on one line."""
    for special, meant in SPECIAL.items():
        text = text.replace(special, meant)
    return " ".join(text.split())


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    """Return a table. Its cells are Markdown: what comes from elsewhere goes through `safe` first."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"
