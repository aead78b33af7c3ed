"""The page of results and the numbers in the prose say what the records say."""

import math
import re
from collections.abc import Iterator

import nbformat
import pytest
from nbformat import NotebookNode

import notebooks
import results
from course_lib import studies

BOOK = notebooks.ROOT / "book"
PRINTED = ("text/plain", "text/html", "text/markdown")
# "99.1 %<!-- record: ssgan_mnist_1000 test_accuracy 0.0005 -->": record, key, tolerance in the record's own unit.
BOUND = re.compile(
    r"(?:(?P<number>-?\d[\d,]*(?:\.\d+)?)\s*(?P<percent>%)?[^\d<]*)?<!--\s*record:(?P<words>[^>]*)-->", re.DOTALL
)


def prose() -> Iterator[tuple[str, str]]:
    """Yield every page and every Markdown cell of the book with its name."""
    for path in sorted(BOOK.rglob("*.md")):
        yield path.name, path.read_text()
    for path in sorted(BOOK.rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                yield path.name, cell.source


def half_a_unit(number: str) -> float:
    """Return half a unit of a number's last digit that counts: 0.05 of 1,234.5, 0.5 of 20, and 5 of 720."""
    digits = number.replace(",", "")
    if "." in digits:
        return 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return 5.0 if len(digits) > 2 and digits.endswith("0") else 0.5


def departures(text: str, recorded: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield what is wrong with the numbers in a text that are bound to a record."""
    for line in text.splitlines():
        if line.lstrip().startswith("<!-- record:"):
            yield f"{line}: at the start of a line it would end the paragraph; put it behind its number"
    for match in BOUND.finditer(text):
        words = match["words"].split()
        if len(words) != 3 or words[0] not in recorded or words[1] not in recorded[words[0]]:
            yield f"{match[0]}: no such record, key or tolerance"
            continue
        if match["number"] is None:
            yield f"{match[0]}: no number stands before it"
            continue
        scale = 100 if match["percent"] else 1
        value, (name, key, tolerance) = float(match["number"].replace(",", "")) / scale, words
        widest = half_a_unit(match["number"]) / scale
        if float(tolerance) > widest * (1 + 1e-9):
            yield f"{match[0]}: a tolerance of at most {widest:g}, half a unit of the last digit"
        if not abs(value - recorded[name][key]) <= float(tolerance):
            yield f"{match[0]}: recorded {recorded[name][key]:.6g}"


def test_numbers_in_the_prose_are_those_of_their_records():
    recorded = results.values()
    found = [f"{name}: {wrong}" for name, text in prose() for wrong in departures(text, recorded)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("It reaches 99.1 % <!-- record: net accuracy 0.0005 -->.", False),
        ("It reaches 99.1 %\n<!-- record: net accuracy 0.0005 -->", True),
        ("It reaches 99.1 %<!-- record: net accuracy 0.0005 -->", False),
        ("It reaches 99.1 %<!-- record: net accuracy 0.0006 -->", True),
        ("a gain of 1,234.5 points <!-- record: net gain 0.05 -->", False),
        ("a gain of 1,230 points <!-- record: net gain 5 -->", False),
        ("a gain of 1,230 points <!-- record: net gain 6 -->", True),
        ("a gain of 1,230 points <!-- record: net gain 1 -->", True),
        ("It reaches 99.3 % <!-- record: net accuracy 0.0005 -->.", True),
        ("It reaches 0.991 % <!-- record: net accuracy 0.0005 -->.", True),
        ("It reaches 99.1 % <!-- record: net accurracy 0.0005 -->.", True),
        ("It reaches 99.1 % <!-- record: another accuracy 0.0005 -->.", True),
        ("It reaches 99.1 % <!-- record: net accuracy -->.", True),
        ("It reaches much <!-- record: net accuracy 0.0005 -->.", True),
    ],
)
def test_a_number_that_departs_from_its_record_is_found(text, wrong):
    recorded = {"net": {"accuracy": 0.991, "gain": 1234.5}}
    assert bool(list(departures(text, recorded))) is wrong


# ── Numbers that nothing checks ───────────────────────────────────────────────────────────────────────────────────

# What a reader takes for a result: a percentage, or in a notebook any number with a decimal point; on a page, where
# such a number may be a version, it needs a unit. Seconds there come from a record; notebooks state none.
RESULT = re.compile(
    r"(?<![\w.,])(?P<number>\d+(?:,\d{3})*(?P<decimals>\.\d+)?)(?![\d,.]*\d)"
    r"(?:(?P<percent>\s*%|\s+percent\b)|(?P<points>\s+(?:percentage )?points?\b)|(?P<seconds>\s+seconds?\b))?"
)
BINDING = re.compile(r"[^\d<]*<!--\s*record:")
NO_RESULT = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$"  # code and mathematics
    r"|\[[^\]]*\]\(https?:[^)]*\)|\]\([^)]*\)|https?://\S+"  # what is quoted from a page elsewhere, addresses
    r"|\(\d+\.\d+[a-z]?\)|\"\d[^\"\n]{0,8}\"",  # an equation, somebody's words
    re.DOTALL,
)
# Two pages are generated, and the glossary has no results.
NOT_BY_HAND = {"results.md", "elsewhere.md", "glossary.md"}
LITERAL = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def literals(text: str) -> set[float]:
    return {float(number.rstrip(",").replace(",", "")) for number in LITERAL.findall(text)}


def numbers_shown(notebook: NotebookNode) -> set[float]:
    """Return the numbers that a notebook prints and `make test` compares, and the settings in its code.

    The bounds of claims are among them; what a claim measured is not. A setting is a number of two decimals or more:
    others occur too often for their presence to mean anything.
    """
    printed, settings = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            settings += "".join(f" {number}" for number in re.findall(r"(?<![\w.])\d+\.\d{2,}", cell.source))
        for output in cell.get("outputs", []):
            shown = [output.get("text", ""), *(output.get("data", {}).get(kind, "") for kind in PRINTED)]
            printed += "\n".join(["", *shown])
    return literals(re.sub(r"\[measured [^\]]*\]", "", printed) + settings)


def unchecked(text: str, shown: set[float], *, in_notebook: bool = True) -> Iterator[str]:
    """Yield the results in a text that no record, no printed line and no bound of a claim would contradict.

    In a paragraph, list or row with a number from a record all results are to come from one. Elsewhere a result may be
    one of the numbers `shown`. Not seen are whole numbers other than percentages, and numbers in words.
    """
    text = re.split(r"^## Sources$", text, flags=re.MULTILINE)[0]
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*\|)", text):
        readable = NO_RESULT.sub(lambda aside: " " * len(aside[0]), paragraph)
        readable = re.sub(r"(?<=record:).*?(?=-->)", lambda words: " " * len(words[0]), readable, flags=re.DOTALL)
        for match in RESULT.finditer(readable):
            value = float(match["number"].replace(",", ""))
            counts = match["decimals"] or match["percent"]
            if not in_notebook:
                counts = match["percent"] or match["seconds"] or (match["points"] and match["decimals"])
            if not counts or BINDING.match(readable, match.end()):
                continue
            candidates = {value, value / 100} if match["percent"] else {value}
            is_shown = any(math.isclose(number, one) for number in shown for one in candidates)
            if not is_shown or "<!-- record:" in readable:
                yield readable[max(0, match.start() - 40) : match.end() + 20]


def test_every_result_in_the_prose_is_bound_to_a_record_or_printed():
    found = []
    for path in sorted(BOOK.rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        shown = numbers_shown(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                found += [f"{path.name}: …{number!r}" for number in unchecked(cell.source, shown)]
    for path in sorted(BOOK.rglob("*.md")):
        if path.name not in NOT_BY_HAND:
            found += [f"{path.name}: …{number!r}" for number in unchecked(path.read_text(), set(), in_notebook=False)]
    assert not found, "bind these to a record, or have a cell print them or claim bounds:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It reaches 99.1 %<!-- record: net accuracy 0.0005 -->, the other 95 %.", 1),
        ("It reaches 99.1 % of the test pictures<!-- record: net accuracy 0.0005 -->.", 0),
        ("It reaches 99.1 %, 92.5 % or 0.925.", 1),
        ("It reaches 92.5 %, between 4.1 and 4 points, or 4.0.", 1),
        ("It reaches 92.5 %.\n\n- It reaches 99.1 %<!-- record: net accuracy 0.0005 -->.\n- It reaches 92.5 %.", 1),
        ("It reaches 92.5 % and 99.1 %<!-- record: net accuracy 0.0005 -->.", 1),
        ("Three of 500; $p = 0.3$, `0.3`, (6.3), a rate of 0.004, 294 points in the plane, ResNet-18.", 0),
        ('Chen reports [73.9 %](https://example.org/0.5). It says "99.9 %" and errs.', 0),
        ("## Sources\n\nPages 1.2 to 3 %.", 0),
    ],
)
def test_a_result_that_nothing_checks_is_found(text, count):
    cell = nbformat.v4.new_code_cell("rate = 0.004 + 0.1")
    cell.outputs = [
        nbformat.v4.new_output("stream", text="✓ accuracy is at least 0.925   [measured 0.991]\n4 points\n")
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert numbers_shown(notebook) == {0.925, 4.0, 0.004}
    assert len(list(unchecked(text, numbers_shown(notebook)))) == count


def test_the_page_of_results_is_the_one_that_the_records_give():
    assert results.PAGE.read_text() == results.page().rstrip() + "\n", "run `make results`"


def test_what_a_record_holds_is_shown_and_never_read_as_a_page(monkeypatch):
    entries = studies.read("mnist")
    entries[0]["environment"]["device"] = "<script>alert(1)</script> | x"
    monkeypatch.setattr(studies, "read", lambda name: entries)
    page = results._study("mnist")
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &#124; x" in page
