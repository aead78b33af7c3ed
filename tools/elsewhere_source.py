"""What a measurement depends on: the code of a notebook without its bounds, and what it uses of course_lib."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

import notebooks

ROOT = notebooks.ROOT
PACKAGE = ROOT / "course_lib"
MUTATIONS = ROOT / "tests" / "mutations"
# Modules that read data which come with the package, and where these lie.
DATA = {
    "studies.py": "recorded/*.*",
    "recorded_runs.py": "recorded/pictured/*/*",
    "pretrained.py": "weights/*/*",
    "evaluation/judge.py": "weights/classifier_*/*",
}

NUMBER = r"-?(?:\d[\d.]*(?:e[+-]?\d+)?|inf)"
CLAIM = re.compile(
    rf"^✓ (?P<fact>.+) is (?:between (?P<low>{NUMBER}) and (?P<high>{NUMBER})"
    rf"|at least (?P<least>{NUMBER})|at most (?P<most>{NUMBER}))   \[measured (?P<measured>{NUMBER})\]$"
)


class SourceError(Exception):
    """A mutation does not fit the code that it is to damage."""


@dataclass(frozen=True)
class Claim:
    """A claim as a notebook has stored it: its fact, its bounds (None where there is none) and what was measured."""

    fact: str
    low: float | None
    high: float | None
    measured: float


def claims_in(cell: Any) -> Iterator[Claim]:
    """Yield the claims that a cell has printed."""
    for output in cell.get("outputs", []):
        for line in output.get("text", "").splitlines():
            if found := CLAIM.match(line):
                low, high = found["low"] or found["least"], found["high"] or found["most"]
                bounds = [float(bound) if bound else None for bound in (low, high)]
                yield Claim(found["fact"], *bounds, float(found["measured"]))


def claims(path: Path) -> list[Claim]:
    """Return the claims of a notebook, in order."""
    return [claim for cell in nbformat.read(path, as_version=4).cells for claim in claims_in(cell)]


def facts(cell: Any) -> set[str]:
    """Return the facts that a cell claims."""
    return {claim.fact for claim in claims_in(cell)}


# ── What decides about a result ───────────────────────────────────────────────────────────────────────────────────


def measured_text(path: Path) -> str:
    """Return everything in the project that decides what the claims of a notebook measure."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    code = [without_bounds(cell.source) for cell in cells[1:]]  # the first one sets up
    return json.dumps([code, *(digest(text_of(file)) for file in used_files(cells))])


def full_text(path: Path) -> str:
    """Return what else decides whether outputs are those that are stored: sources to the letter, and the outputs."""
    cells = nbformat.read(path, as_version=4).cells
    code = [[cell.source, [output_text(output) for output in cell.outputs]] for cell in cells if "outputs" in cell]
    return json.dumps(code)


def output_text(output: Any) -> str:
    """Return what of an output is compared, the measured numbers of claims left out."""
    kept = {key: value for key, value in output.get("data", {}).items() if not key.startswith("image/")}
    return re.sub(r"\[measured [^\]\n]*\]", "", json.dumps([output.get("text", ""), kept], ensure_ascii=False))


def digest(*parts: Any) -> str:
    """Return a short hash."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def without_bounds(code: str) -> str:
    """Return code without comments, layout and the bounds of claims: none of these decides what is measured."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a magic command
        return code
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "claim":
            node.keywords = [part for part in node.keywords if part.arg not in ("at_least", "at_most", "between")]
    return ast.unparse(tree)


@cache
def text_of(file: Path) -> str:
    """Return what decides in a file: the code without comments and docstrings, or the bytes of anything else."""
    if file.suffix != ".py":
        return file.read_bytes().hex()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def used_files(cells: list[Any]) -> list[Path]:
    """Return the files of course_lib that code imports, directly or through others, and the data that they read."""
    found: set[Path] = set()
    waiting = [file for cell in cells for file in imported_files(cell.source)]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        waiting += imported_files(file.read_text(encoding="utf-8"))
    for name, pattern in DATA.items():
        if PACKAGE / name in found:
            found |= set(PACKAGE.glob(pattern))
    return sorted(found)


def imported_files(code: str) -> list[Path]:
    """Return the files of course_lib that a piece of code names in its imports."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    files = []
    for name in names:
        parts = name.split(".")
        if parts[0] != "course_lib":
            continue
        for end in range(1, len(parts) + 1):
            place = ROOT.joinpath(*parts[:end])
            files += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return files


# ── Mutations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def damage(mutation: dict[str, Any]) -> list[Any]:
    """Return what of a mutation decides about its result."""
    return [mutation["file"], mutation["old"], mutation["new"], sorted(mutation["catches"])]


def cell_with(notebook: Any, mutation: dict[str, Any]) -> Any:
    """Return the one code cell that holds the text to be replaced.

    Raises:
        SourceError: no cell holds it, or it stands there more than once.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and mutation["old"] in cell.source]
    if len(cells) != 1 or cells[0].source.count(mutation["old"]) != 1:
        raise SourceError(
            f"mutation {mutation['name']!r}: its text must stand once in the cells up to the last claim that it names, "
            f"but {len(cells)} cells hold it: {mutation['old']!r}"
        )
    return cells[0]


def text_with(file: Path, mutation: dict[str, Any]) -> str:
    """Return the text of a file, which holds the text to be replaced once.

    Raises:
        SourceError: there is no such file, or it does not hold the text just once.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(mutation["old"]) != 1:
        count = text.count(mutation["old"])
        raise SourceError(f"mutation {mutation['name']!r}: its text stands {count} times in {mutation['file']}")
    return text
