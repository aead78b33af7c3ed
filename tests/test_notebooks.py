"""What must hold for a stored notebook before its outputs are worth comparing, and proof that each rule can fail."""

import ast
import copy
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbval.plugin import get_sanitize_patterns

import notebooks
from elsewhere_source import CLAIM

ROOT = notebooks.ROOT
REPOSITORY = notebooks.configured_repository()
LARGEST_BYTES = 1_500_000
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|root|Users|tmp|work|private|var/folders)/[\w.]|\b[A-Z]:\\+(?:Users|Windows|Program|Temp)"
)
HIDING_TAGS = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
EXEMPTING_TAGS = {"nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception"}
SHORTEST_REASON = 4  # words
WIDEST_LISTING = 85  # columns; the book and Colab cut off or wrap what is wider
MYST_ONLY = re.compile(r"^\s*(?:```+|~~~+|:::+)\s*\{|\{[a-z:]+\}`", re.MULTILINE)


# ── What the rules look at ────────────────────────────────────────────────────────────────────────────────────────


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    for cell in code_cells(notebook):
        yield from cell.outputs


def pictures(cell: NotebookNode) -> list[str]:
    return [mime for output in cell.get("outputs", []) for mime in output.get("data", {}) if mime.startswith("image/")]


def texts(notebook: NotebookNode) -> Iterator[str]:
    """Everything in the file that can be read: sources, printed text, text and HTML values, drawings as SVG."""
    for cell in notebook.cells:
        yield cell.source
    for output in outputs(notebook):
        yield output.get("text", "")
        yield from output.get("traceback", [])
        for mime, value in output.get("data", {}).items():
            if mime not in ("image/png", "image/jpeg"):
                yield value if isinstance(value, str) else json.dumps(value)


def claim_lines(notebook: NotebookNode) -> list[str]:
    printed = [output.get("text", "") for output in outputs(notebook)]
    return [line for text in printed for line in text.splitlines() if line.startswith("✓")]


# ── The rules: each yields what is wrong ──────────────────────────────────────────────────────────────────────────


def was_run_in_order_on_a_fresh_kernel(notebook: NotebookNode) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1 to {len(counts)}: make execute"


def has_no_empty_code_cell(notebook: NotebookNode) -> Iterator[str]:
    if any(not cell.source.strip() for cell in code_cells(notebook)):
        yield "an empty code cell"


def stores_nothing_from_stderr(notebook: NotebookNode) -> Iterator[str]:
    for output in outputs(notebook):
        if output.get("name") == "stderr":
            yield f"a warning or progress bar is stored: {output.text[:200]!r}"


def stores_no_error(notebook: NotebookNode) -> Iterator[str]:
    for output in outputs(notebook):
        if output.output_type == "error":
            yield f"an error is stored: {output.ename}: {output.evalue}"


def names_no_path_of_a_machine(notebook: NotebookNode) -> Iterator[str]:
    for text in texts(notebook):
        for path in MACHINE_PATH.finditer(text):
            yield f"a path of somebody's machine: {text[path.start() : path.start() + 60]!r}"


def is_small_enough_to_open(notebook: NotebookNode) -> Iterator[str]:
    size = len(nbformat.writes(notebook).encode())
    if size > LARGEST_BYTES:
        yield f"{size} bytes; at most {LARGEST_BYTES}: draw smaller pictures or fewer"


def carries_only_the_shared_metadata(notebook: NotebookNode) -> Iterator[str]:
    expected = notebooks.METADATA | {
        key: notebook.metadata[key] for key in notebooks.COLAB_METADATA if key in notebook.metadata
    }
    if notebook.metadata != expected or notebook.nbformat_minor != 5:
        yield "the notebook's metadata differ from those that all share: make execute"
    for cell in notebook.cells:
        timings = set(cell.metadata) & set(notebooks.TIMING_METADATA)
        if timings:
            yield f"timings are stored ({', '.join(timings)}): make execute"


def starts_with_the_setup_cell(notebook: NotebookNode) -> Iterator[str]:
    first = code_cells(notebook)[0]
    if first.source != notebooks.setup_cell(REPOSITORY):
        yield f"the first code cell is not the setup cell for {REPOSITORY}: make repo REPO={REPOSITORY}, or copy it"
    if "hide-input" not in first.metadata.get("tags", []):
        yield "the setup cell lacks the tag hide-input"
    if first.outputs:
        yield "the setup cell printed something: execute where course_lib is installed"
    if any("pip install" in cell.source for cell in code_cells(notebook)[1:]):
        yield "only the setup cell installs"


def sets_its_threads_where_the_reader_sees_it(notebook: NotebookNode) -> Iterator[str]:
    imports = code_cells(notebook)[1]
    if not re.search(r"^runtime\.use_threads\(", imports.source, re.MULTILINE):
        yield "the cell with the imports, the second one, has no line runtime.use_threads(…)"
    if HIDING_TAGS & set(imports.metadata.get("tags", [])):
        yield "the cell that sets the threads is hidden"


def gives_a_reason_for_every_exemption(notebook: NotebookNode) -> Iterator[str]:
    for cell in code_cells(notebook):
        exempt = EXEMPTING_TAGS & set(cell.metadata.get("tags", []))
        reason = str(cell.metadata.get("nbval_reason", ""))
        if exempt and len(reason.split()) < SHORTEST_REASON:
            yield f"a cell tagged {', '.join(exempt)} needs a sentence as 'nbval_reason', not {reason!r}"
        if re.search(r"^\s*#\s*(?:NBVAL_|PYTEST_VALIDATE)", cell.source, re.MULTILINE):
            yield "a comment exempts a cell: use the tag and a reason in the metadata"


def describes_every_picture_in_words(notebook: NotebookNode) -> Iterator[str]:
    for cell in code_cells(notebook):
        count = len(pictures(cell))
        if count > 1:
            yield f"a cell shows {count} pictures: one each, so that its text alternative is unambiguous"
        alternative = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if count and len(alternative.split()) < 3:
            yield f"a picture lacks words in metadata mystnb.image.alt (found {alternative!r})"


def puts_a_numbered_caption_under_every_picture(notebook: NotebookNode) -> Iterator[str]:
    number = 0
    for cell, below in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if cell.cell_type == "code" and pictures(cell):
            number += 1
            start = f"*Figure {number}.* "
            if below is None or below.cell_type != "markdown" or not below.source.startswith(start):
                yield f"the cell below picture {number} does not begin with {start!r}"


def leaves_only_claims_uncompared(notebook: NotebookNode) -> Iterator[str]:
    for output in outputs(notebook):
        printed = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        for line in printed.splitlines():
            if "[measured " in line and not line.startswith("✓ "):
                yield f"only claim() may print a bracket that is not compared: {line!r}"


def stores_claims_that_hold(notebook: NotebookNode) -> Iterator[str]:
    for line in claim_lines(notebook):
        found = CLAIM.fullmatch(line)
        if not found:
            yield f"not a line as claim() prints it: {line!r}"
            continue
        low, high, least, most, measured = (None if part is None else float(part) for part in found.groups()[1:])
        # The number is printed with four digits, so the bounds are rounded to as many.
        too_small = any(measured < float(f"{bound:.4g}") for bound in (low, least) if bound is not None)
        too_large = any(measured > float(f"{bound:.4g}") for bound in (high, most) if bound is not None)
        if too_small or too_large:
            yield f"stored with a number outside its bounds: {line!r}"


def claims_each_fact_once(notebook: NotebookNode) -> Iterator[str]:
    facts = Counter(found[1] for line in claim_lines(notebook) if (found := CLAIM.fullmatch(line)))
    for fact, count in facts.items():
        if count > 1:
            yield f"{count} claims have the name {fact!r}"


def needs_nothing_from_elsewhere_to_be_shown(notebook: NotebookNode) -> Iterator[str]:
    for output in outputs(notebook):
        for mime in output.get("data", {}):
            if "widget" in mime or "javascript" in mime:
                yield f"an output of type {mime} does not show offline: use `from tqdm import tqdm`, not tqdm.auto"


def is_written_in_plain_markdown(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        found = MYST_ONLY.search(cell.source) if cell.cell_type == "markdown" else None
        if found:
            yield f"Colab shows {found[0].strip()!r} as it stands: write plain Markdown"


def numbers_no_equation_of_several_lines(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        for equation in re.findall(r"\$\$(.+?)\$\$", cell.source, re.DOTALL) if cell.cell_type == "markdown" else []:
            if r"\tag" in equation and r"\\" in equation:
                yield f"the book cannot set \\tag beside a line break: {equation.strip()[:60]!r}"


# ── Every notebook keeps every rule ───────────────────────────────────────────────────────────────────────────────

RULES: list[Callable[[NotebookNode], Iterator[str]]] = [
    was_run_in_order_on_a_fresh_kernel,
    has_no_empty_code_cell,
    stores_nothing_from_stderr,
    stores_no_error,
    names_no_path_of_a_machine,
    is_small_enough_to_open,
    carries_only_the_shared_metadata,
    starts_with_the_setup_cell,
    sets_its_threads_where_the_reader_sees_it,
    gives_a_reason_for_every_exemption,
    describes_every_picture_in_words,
    puts_a_numbered_caption_under_every_picture,
    leaves_only_claims_uncompared,
    stores_claims_that_hold,
    claims_each_fact_once,
    needs_nothing_from_elsewhere_to_be_shown,
    is_written_in_plain_markdown,
    numbers_no_equation_of_several_lines,
]
NOTEBOOKS = {path.relative_to(ROOT).as_posix(): path for path in notebooks.notebook_paths()}


def test_the_book_has_a_notebook():
    assert NOTEBOOKS, "there is no notebook under book/: nothing would be executed or compared"


# The guard keeps pytest from skipping the test where there is no notebook; the test above then says what is wrong.
@pytest.mark.parametrize("name", NOTEBOOKS or ["none"])
def test_notebook_keeps_every_rule(name):
    assert name in NOTEBOOKS, "there is no notebook under book/"
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    problems = [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(notebook)]
    assert not problems, f"{name}\n" + "\n".join(problems)


# ── Listings from the package ─────────────────────────────────────────────────────────────────────────────────────


def shown_sources(notebook: NotebookNode) -> Iterator[str]:
    """Yield the dotted name of everything whose source a notebook shows; all imports stand in its second code cell."""
    cells = code_cells(notebook)
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(cells[1].source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for cell in cells:
        for name in re.findall(r"^show_source\((.+)\)$", cell.source, re.MULTILINE):
            first, *rest = name.split(".")
            yield ".".join([imported[first], *rest])


def too_wide(source: str) -> list[str]:
    return [line for line in source.splitlines() if len(line) > WIDEST_LISTING]


LISTINGS = sorted({name for path in NOTEBOOKS.values() for name in shown_sources(nbformat.read(path, as_version=4))})


@pytest.mark.parametrize("name", LISTINGS)
def test_a_source_that_a_notebook_shows_fits_the_page(name):
    assert too_wide(inspect.getsource(pkgutil.resolve_name(name))) == []


def test_a_listing_is_found_and_a_wide_line_of_it_too():
    imports = "from course_lib import numpy_conv\nfrom course_lib.claims import claim as said"
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(source)
            for source in ("setup", imports, "show_source(numpy_conv.conv2d)\nshow_source(said)")
        ]
    )
    assert list(shown_sources(notebook)) == ["course_lib.numpy_conv.conv2d", "course_lib.claims.claim"]
    assert too_wide(f"{'x' * WIDEST_LISTING}\n{'y' * (WIDEST_LISTING + 1)}") == ["y" * (WIDEST_LISTING + 1)]


# ── Every rule can fail ───────────────────────────────────────────────────────────────────────────────────────────


GOOD_CLAIMS = """\
✓ accuracy is at least 0.9   [measured 0.951]
✓ what is said to be between 2 and 3 is between -0.5 and 1e-05   [measured -0.03]
✓ the number of updates is at least 12344.5   [measured 1.234e+04]
✓ largest difference is at most 1e-10   [measured 0]
"""


def good_notebook() -> NotebookNode:
    new = nbformat.v4
    setup = new.new_code_cell(notebooks.setup_cell(REPOSITORY), execution_count=1, metadata={"tags": ["hide-input"]})
    picture = new.new_code_cell(
        'runtime.use_threads("quick")\nplt.show()',
        execution_count=2,
        metadata={"mystnb": {"image": {"alt": "A curve that rises, then levels off"}}},
        outputs=[
            new.new_output("stream", text=GOOD_CLAIMS),
            new.new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480>"}),
        ],
    )
    cells = [
        new.new_markdown_cell("# A title\n\nMathematics such as $D:\\mathbb{R}^2 \\to [0, 1]$ is fine."),
        setup,
        picture,
        new.new_markdown_cell("*Figure 1.* Look at where it levels off."),
    ]
    return new.new_notebook(cells=cells, metadata=copy.deepcopy(notebooks.METADATA))


def stream(text: str, name: str = "stdout") -> NotebookNode:
    return nbformat.v4.new_output("stream", text=text, name=name)


def value(**data: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", data=data)


def prints(text: str) -> Callable[[NotebookNode], object]:
    """Return what makes a notebook print a line more."""
    return lambda notebook: notebook.cells[2].outputs.append(stream(text + "\n"))


BREAKAGES: list[tuple[Callable, Callable[[NotebookNode], object]]] = [
    (was_run_in_order_on_a_fresh_kernel, lambda nb: nb.cells[2].update(execution_count=5)),
    (was_run_in_order_on_a_fresh_kernel, lambda nb: nb.cells[2].update(execution_count=None)),
    (has_no_empty_code_cell, lambda nb: nb.cells[2].update(source=" \n")),
    (stores_nothing_from_stderr, lambda nb: nb.cells[2].outputs.append(stream("UserWarning", name="stderr"))),
    (stores_no_error, lambda nb: nb.cells[2].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="v"))),
    (names_no_path_of_a_machine, lambda nb: nb.cells[2].outputs.append(stream("saved to /home/" + "ada/run"))),
    (names_no_path_of_a_machine, lambda nb: nb.cells[0].update(source="see `C:\\" + "Users\\ada`")),
    (is_small_enough_to_open, lambda nb: nb.cells[2].outputs.append(value(**{"image/png": "A" * 1_600_000}))),
    (carries_only_the_shared_metadata, lambda nb: nb.metadata.language_info.update(version="3.11.7")),
    (carries_only_the_shared_metadata, lambda nb: nb.cells[2].metadata.update(execution={"iopub.execute_input": ""})),
    (starts_with_the_setup_cell, lambda nb: nb.cells[1].update(source=notebooks.setup_cell("somebody/else"))),
    (starts_with_the_setup_cell, lambda nb: nb.cells[1].metadata.update(tags=[])),
    (starts_with_the_setup_cell, lambda nb: nb.cells[1].outputs.append(stream("Successfully installed"))),
    (starts_with_the_setup_cell, lambda nb: nb.cells[2].update(source="%pip install nothing")),
    (sets_its_threads_where_the_reader_sees_it, lambda nb: nb.cells[2].update(source="plt.show()")),
    (sets_its_threads_where_the_reader_sees_it, lambda nb: nb.cells[2].update(source="# runtime.use_threads(1)")),
    (sets_its_threads_where_the_reader_sees_it, lambda nb: nb.cells[2].metadata.update(tags=["hide-cell"])),
    (gives_a_reason_for_every_exemption, lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"])),
    (
        gives_a_reason_for_every_exemption,
        lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"], nbval_reason="random"),
    ),
    (gives_a_reason_for_every_exemption, lambda nb: nb.cells[2].update(source="# NBVAL_IGNORE_OUTPUT\n1")),
    (describes_every_picture_in_words, lambda nb: nb.cells[2].metadata.pop("mystnb")),
    (describes_every_picture_in_words, lambda nb: nb.cells[2].outputs.append(value(**{"image/png": "AAAA"}))),
    (puts_a_numbered_caption_under_every_picture, lambda nb: nb.cells.pop()),
    (puts_a_numbered_caption_under_every_picture, lambda nb: nb.cells[3].update(source="*Figure 2.* Look.")),
    (leaves_only_claims_uncompared, lambda nb: nb.cells[2].outputs.append(stream("loss [measured 3.1]"))),
    (stores_claims_that_hold, prints("✓ a is between 0.9 and 1   [measured 99]")),
    (stores_claims_that_hold, prints("✓ a is between 0.9 and 1   [measured -0.95]")),
    (stores_claims_that_hold, prints("✓ a is at least 0.9   [measured 0.8999]")),
    (stores_claims_that_hold, prints("✓ a is at most 1e-10   [measured 2e-10]")),
    (stores_claims_that_hold, prints("✓ a is at most 2   [measured nan]")),
    (stores_claims_that_hold, prints("✓ a is at least 0.9 and at most 1   [measured 0.95]")),
    (stores_claims_that_hold, prints("✓ all is well")),
    (claims_each_fact_once, prints("✓ accuracy is at least 0.8   [measured 0.95]")),
    (needs_nothing_from_elsewhere_to_be_shown, lambda nb: nb.cells[2].outputs.append(value(**{"a/widget": "x"}))),
    (is_written_in_plain_markdown, lambda nb: nb.cells[0].update(source="# T\n\n```{note}\nx\n```")),
    (is_written_in_plain_markdown, lambda nb: nb.cells[0].update(source="# T\n\nsee {cite}`salimans`")),
    (numbers_no_equation_of_several_lines, lambda nb: nb.cells[0].update(source="$$\na \\\\ b \\tag{1}\n$$")),
]


def test_a_good_notebook_breaks_no_rule():
    assert [problem for rule in RULES for problem in rule(good_notebook())] == []


@pytest.mark.parametrize(("rule", "break_it"), BREAKAGES, ids=[rule.__name__ for rule, _ in BREAKAGES])
def test_rule_finds_what_it_is_there_for(rule, break_it):
    notebook = good_notebook()
    break_it(notebook)
    assert list(rule(notebook))


def test_every_rule_is_proved_able_to_fail():
    assert {rule for rule, _ in BREAKAGES} == set(RULES)


# ── Running and comparing ─────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_measured_number_of_a_claim_is_masked():
    patterns = get_sanitize_patterns((ROOT / "tests" / "nbval_sanitize.cfg").read_text())
    assert len(patterns) == 1
    ((regex, replacement),) = patterns
    line = "✓ accuracy is at least 0.9   [measured 0.951]\nloss 0.123 [0.4]"
    assert re.sub(regex, replacement, line) == "✓ accuracy is at least 0.9   [measured]\nloss 0.123 [0.4]"


def write(path: Path, *cells: str) -> None:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)


def test_executed_notebook_passes_the_comparison_until_a_digit_or_a_picture_changes(tmp_path):
    path = tmp_path / "small.ipynb"
    line, bars = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()", "plt.bar([0, 1], [1, 3])\nplt.show()"
    write(path, "print('3 digits [measured 0.1]')", "print(1234)", line, bars, bars)
    assert notebooks.main(["execute", str(path)]) == 0
    stored = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in stored.cells] == [1, 2, 3, 4, 5]
    assert stored.cells[1].outputs == [stream("1234\n")]
    assert stored.metadata == notebooks.METADATA

    stored.cells[0].outputs[0].text = "3 digits [measured 0.2]\n"
    stored.cells[1].outputs[0].text = "1235\n"
    line, bars = (stored.cells[place].outputs[0].data for place in (2, 3))
    line["image/png"], bars["image/png"] = bars["image/png"], line["image/png"]
    stored.cells[3].metadata.tags = ["nbval-ignore-output"]
    nbformat.write(stored, path)
    # "-p conftest", as the notebook lies outside the folders that it is there for.
    options = ["-c", "pyproject.toml", "-p", "conftest", "-p", "no:cacheprovider"]
    compare = [sys.executable, "-m", "pytest", "--nbval", *options, str(path)]
    compared = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "2 failed, 3 passed" in compared.stdout, compared.stdout + compared.stderr
    assert "the stored picture is not the one drawn" in compared.stdout


def test_failing_notebook_is_left_as_it_was(tmp_path, capsys):
    path = tmp_path / "failing.ipynb"
    write(path, "1 / 0")
    before = path.read_bytes()
    assert notebooks.main(["execute", str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_tidying_drops_timings_and_versions_but_keeps_the_wish_for_a_gpu():
    notebook = good_notebook()
    notebook.metadata.language_info.version = "3.11.7"
    notebook.metadata.accelerator = "GPU"
    notebook.cells[2].metadata.execution = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    notebooks.tidy(notebook)
    assert notebook.metadata == notebooks.METADATA | {"accelerator": "GPU"}
    assert "execution" not in notebook.cells[2].metadata
    assert "mystnb" in notebook.cells[2].metadata
