"""The page of results and the numbers in the prose say what the records say."""

import re
from collections.abc import Iterator

import nbformat
import pytest

import notebooks
import results
from course_lib import studies

BOOK = notebooks.ROOT / "book"
# "99.1 %<!-- record: ssgan_mnist_1000 test_accuracy 0.001 -->": record, key, tolerance in the record's own unit.
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
        value, (name, key, tolerance) = float(match["number"].replace(",", "")), words
        value = value / 100 if match["percent"] else value
        if not abs(value - recorded[name][key]) <= float(tolerance):
            yield f"{match[0]}: recorded {recorded[name][key]:.6g}"


def test_numbers_in_the_prose_are_those_of_their_records():
    recorded = results.values()
    found = [f"{name}: {wrong}" for name, text in prose() for wrong in departures(text, recorded)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("It reaches 99.1 % <!-- record: net accuracy 0.001 -->.", False),
        ("It reaches 99.1 %\n<!-- record: net accuracy 0.001 -->", True),
        ("It reaches 99.1 %<!-- record: net accuracy 0.001 -->", False),
        ("a gain of 1,234.5 points <!-- record: net gain 0.1 -->", False),
        ("It reaches 99.3 % <!-- record: net accuracy 0.001 -->.", True),
        ("It reaches 0.991 % <!-- record: net accuracy 0.001 -->.", True),
        ("It reaches 99.1 % <!-- record: net accurracy 0.001 -->.", True),
        ("It reaches 99.1 % <!-- record: another accuracy 0.001 -->.", True),
        ("It reaches 99.1 % <!-- record: net accuracy -->.", True),
        ("It reaches much <!-- record: net accuracy 0.001 -->.", True),
    ],
)
def test_a_number_that_departs_from_its_record_is_found(text, wrong):
    recorded = {"net": {"accuracy": 0.991, "gain": 1234.5}}
    assert bool(list(departures(text, recorded))) is wrong


def test_the_page_of_results_is_the_one_that_the_records_give():
    assert results.PAGE.read_text() == results.page().rstrip() + "\n", "run `make results`"


@pytest.mark.parametrize("name", studies.STUDIES)
def test_a_study_has_one_record_for_each_of_its_runs(name):
    expected = [f"python -m course_lib {run}" for run in studies.STUDIES[name].runs]
    assert [entry["command"] for entry in studies.read(name)] == expected
