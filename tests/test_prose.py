"""What the prose points to exists: terms in the glossary, figures, equations, files, commands of `make`."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

import notebooks

ROOT = notebooks.ROOT
BOOK = ROOT / "book"
GLOSSARY = "book/appendix/glossary.md"
GENERATED = {"book/appendix/results.md", "book/appendix/elsewhere.md"}
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
MATHEMATICS = re.compile(r"\$\$.*?\$\$|\$[^$\n]*\$", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


# ── What the rules look at ────────────────────────────────────────────────────────────────────────────────────────


def markdown(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@cache
def books() -> dict[str, NotebookNode]:
    """Return the notebooks by their paths from the root."""
    return {path.relative_to(ROOT).as_posix(): nbformat.read(path, as_version=4) for path in notebooks.notebook_paths()}


@cache
def pages() -> dict[str, str]:
    paths = [ROOT / "README.md", *sorted(BOOK.rglob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def prose() -> dict[str, str]:
    """Return everything that a reader reads: pages and the Markdown of notebooks."""
    return pages() | {name: markdown(notebook) for name, notebook in books().items()}


def everything_said(notebook: NotebookNode) -> str:
    """Return prose, code, and text alternatives."""
    alternatives = [cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "") for cell in notebook.cells]
    return "\n\n".join([cell.source for cell in notebook.cells] + alternatives)


def without(text: str, *patterns: re.Pattern) -> str:
    """Return the text with each match replaced by a space."""
    for pattern in patterns:
        text = pattern.sub(" ", text)
    return text


# ── Terms and the glossary ────────────────────────────────────────────────────────────────────────────────────────

# Italics mark a term, which the glossary explains, or stress a word. A phrase with a word of grammar in it, an adverb
# in -ly, four words or more, and the end of a sentence are no terms; other stressed words are listed. Whoever stresses
# another one adds it here; whoever brings a term writes it into the glossary.
GRAMMAR = """
    after again all already also always any are as at be been before both but by can cannot could did do does each
    either else even ever every everything few fewer first for from had has have he her here his how i if in into is it
    its last least less many may me might more most much must my neither never new no nobody none nor not nothing now
    off often on once one only or other our out over own same second she should so some sometimes still such than that
    their them then there these they third this those to together too twice two under until up upon was we were what
    when where which while who whole whom whose why will with without would yes yet you your
"""
STRESSED = """
    adds against average counting detective difference differences draw factors larger left logarithm map mean names
    number outputs seen shares start strokes sums training used visible worse writes wrong
"""
STRESSED_PHRASES = {
    "edmond de belamy",
    "nearest labelled point",
    "runtime, change runtime type",
    "shift + enter",
    "colab",
}
# First words that stand for a whole term of the glossary: "a *generative* model".
SHORTENED = {
    *("discriminative", "generative", "explicit", "implicit", "supervised", "unsupervised", "semi-supervised"),
    *("em", "held-out", "locally connected", "validation"),
}
ITALIC = re.compile(r"(?<![*\w\\])\*(?![*\s])([^*]+?)(?<!\s)\*(?![*\w])")
TERM = re.compile(r"^(\S[^\n]*) \([^()\n]*\)$", re.MULTILINE)


def terms(glossary: str) -> list[str]:
    """Return all names that the glossary explains; an entry may have several: "PCA, principal component analysis"."""
    return [name for entry in TERM.findall(glossary) for name in entry.split(", ")]


def singular(phrase: str) -> str:
    """Return a phrase in small letters, each word without the ending of a plural."""
    words = [re.sub(r"(?<=[^aeiou])ies$", "y", word) for word in phrase.lower().split()]
    words = [re.sub(r"(?<=s)es$|(?<=[^su])s$", "", word) for word in words]
    return " ".join(words)


def is_explained(phrase: str, names: set[str]) -> bool:
    """Is it a term of the glossary, in singular or plural, or one of the words that stand for a longer term?"""
    phrase = singular(phrase)
    return phrase in names or (phrase in SHORTENED and any(name.startswith(f"{phrase} ") for name in names))


def is_stressed(phrase: str) -> bool:
    words = phrase.lower().split()
    if len(words) > 3 or phrase[-1] in "?!." or set(words) & set(GRAMMAR.split()):
        return True
    return phrase.lower() in {*STRESSED.split(), *STRESSED_PHRASES} or phrase.endswith("ly")


def italics(text: str) -> list[str]:
    prose = without(text, COMMENT, CODE, MATHEMATICS)
    found = (" ".join(match[1].split()) for match in ITALIC.finditer(prose))
    return [phrase for phrase in found if not re.fullmatch(r"Figure \d+\.", phrase)]


def unexplained(text: str, glossary: str) -> list[str]:
    names = {singular(name) for name in terms(glossary)}
    return [phrase for phrase in italics(text) if not is_explained(phrase, names) and not is_stressed(phrase)]


def stems(text: str) -> set[str]:
    words = re.findall(r"[^\W_]+(?:['+-][^\W_]+)*", text.lower())
    return {re.sub(r"(?:ing|ed|es|s|e)$", "", word) for word in words}


def unused(glossary: str, texts: Iterable[str]) -> list[str]:
    """Return the entries of which no paragraph has any name, all its words, in whatever order and form."""
    paragraphs = [stems(paragraph) for text in texts for paragraph in re.split(r"\n\s*\n", text)]
    return [
        entry
        for entry in TERM.findall(glossary)
        if not any(stems(name) <= paragraph for name in entry.split(", ") for paragraph in paragraphs)
    ]


def test_every_term_in_italics_is_in_the_glossary():
    glossary = pages()[GLOSSARY]
    found = {name: unexplained(text, glossary) for name, text in prose().items() if name != GLOSSARY}
    found = {name: phrases for name, phrases in found.items() if phrases}
    assert not found, f"a term for the glossary, or a stressed word for the list in {Path(__file__).name}: {found}"


def test_every_entry_of_the_glossary_is_used_and_stands_there_once():
    glossary = pages()[GLOSSARY]
    others = [text for name, text in pages().items() if name != GLOSSARY]
    others += [everything_said(notebook) for notebook in books().values()]
    assert len(terms(glossary)) > 100, "the glossary has another form; this test reads lines such as `term (訳語)`"
    assert not unused(glossary, others), "no page and no notebook uses these"
    assert not [name for name, count in Counter(terms(glossary)).items() if count > 1], "explained twice"


WORDS = "generative model (生成モデル)\n  Draws.\n\nPCA, principal component analysis (主成分分析)\n  Finds.\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A *generative model* draws, and so do *generative models*, *Generative\nmodels*.", []),
        ("A *generative* model, *PCA*, a *deep generative model*.", ["deep generative model"]),
        ("It is *not* so, *surprisingly*. *Who knows?* **A *loud* word.**", ["loud"]),
        ("`*starred* args`, $a * b * c$ and <!-- *hidden* -->", []),
        ("*Figure 1.* A *perceptron*.", ["perceptron"]),
        ("*perceptron networks* and *model*", ["perceptron networks", "model"]),
    ],
)
def test_a_term_that_the_glossary_lacks_is_found(text, found):
    assert unexplained(text, WORDS) == found


def test_an_entry_that_nothing_uses_is_found():
    assert unused(WORDS, ["Principal *component*\nanalysis."]) == ["generative model"]
    assert unused(WORDS, ["Models that are generative", "a PCA of them"]) == []
    assert unused(WORDS, ["a generative\n\nmodel, a PCAx"]) == ["generative model", "PCA, principal component analysis"]


# ── Figures and equations ─────────────────────────────────────────────────────────────────────────────────────────

FIGURES = re.compile(r"\b[Ff]igures?\s+(\d+(?:(?:\s*(?:,|and|or|to|–)\s*)+\d+)*)(?!\s+of\s+\[)")
DEFINED = re.compile(r"\\tag\{([^}]*)\}")
EQUATION = re.compile(r"(?<![\w)\]])\((\d+\.\d+[a-z]?)\)")
EQUATION_IN_CODE = re.compile(r"\b[Ee]quations?\s+\(?(\d+\.\d+[a-z]?)|#[^\n]*(?<!\w)\((\d+\.\d+[a-z]?)\)")


def missing_figures(notebook: NotebookNode) -> list[str]:
    """Return the numbers of figures that are named and that no caption has."""
    captions = {match[1] for cell in notebook.cells for match in re.finditer(r"^\*Figure (\d+)\.\*", cell.source)}
    named = [number for match in FIGURES.finditer(everything_said(notebook)) for number in re.findall(r"\d+", match[1])]
    return [f"Figure {number}" for number in named if number not in captions]


def equations_named(notebook: NotebookNode) -> list[str]:
    prose = without(markdown(notebook), COMMENT, CODE, MATHEMATICS)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return EQUATION.findall(prose) + [one or other for one, other in EQUATION_IN_CODE.findall(code)]


def faulty_equations(books: dict[str, NotebookNode]) -> Iterator[str]:
    """Yield the equations that are named but not there, and those that are there twice."""
    numbers = [number for notebook in books.values() for number in DEFINED.findall(markdown(notebook))]
    yield from (f"({number}) stands there twice" for number, count in Counter(numbers).items() if count > 1)
    for name, notebook in books.items():
        yield from (f"{name}: no equation ({number})" for number in equations_named(notebook) if number not in numbers)


def test_every_figure_that_is_named_is_there():
    found = {name: missing_figures(notebook) for name, notebook in books().items()}
    assert not {name: figures for name, figures in found.items() if figures}


def test_every_equation_that_is_named_is_there_once():
    assert not list(faulty_equations(books()))
    numbers = {number for notebook in books().values() for number in DEFINED.findall(markdown(notebook))}
    named = {
        name: set(EQUATION.findall(without(text, CODE))) for name, text in pages().items() if name not in GENERATED
    }
    assert not {name: found for name, found in named.items() if found - numbers}


def small(*cells: str | tuple[str, str]) -> NotebookNode:
    """Return a notebook with one caption and one equation, and these cells; a pair is code with a text alternative."""
    new = nbformat.v4
    notebook = new.new_notebook(cells=[new.new_markdown_cell("*Figure 1.* Look.\n\n$$\nx = 1 \\tag{2.1}\n$$")])
    for cell in cells:
        if isinstance(cell, str):
            notebook.cells.append(new.new_markdown_cell(cell))
        else:
            alternative = {"mystnb": {"image": {"alt": cell[1]}}}
            notebook.cells.append(new.new_code_cell(cell[0], metadata=alternative))
    return notebook


def test_a_figure_that_is_not_there_is_found():
    assert missing_figures(small("See Figure 1 and Figure 9 of [another](x.ipynb).", ("# figure 1", ""))) == []
    assert missing_figures(small("See Figures 1, 2 and 3.")) == ["Figure 2", "Figure 3"]
    assert missing_figures(small("as figure\n7 shows")) == ["Figure 7"]
    assert missing_figures(small(("x = 1  # as in Figure 4", "like Figure 5"))) == ["Figure 4", "Figure 5"]


def test_an_equation_that_is_not_there_is_found():
    good = small("By (2.1), $f(2.5)$ and `relu(0.2)`.", ("relu(0.2)  # equation (2.1)", ""))
    assert list(faulty_equations({"a": good})) == []
    assert list(faulty_equations({"a": small("By (2.2)."), "b": good})) == [
        "(2.1) stands there twice",
        "a: no equation (2.2)",
    ]
    assert list(faulty_equations({"a": small(("x  # the sum in (2.3)", ""))})) == ["a: no equation (2.3)"]
    assert list(faulty_equations({"a": small(("print('equation (2.4):', x)", ""))})) == ["a: no equation (2.4)"]


# ── Files and commands ────────────────────────────────────────────────────────────────────────────────────────────

LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
ON_COLAB = re.compile(r"colab\.research\.google\.com/github/[^/\s]+/[^/\s]+/blob/[^/\s]+/([^)\s>\"'`]+)")
NOTEBOOK = re.compile(r"NOTEBOOK=([\w./-]+)")
# A path in backticks that begins with a folder of the project; `runs/` is where a reader puts what comes out.
PATH = re.compile(r"`((?:\.ci|book|course_lib|tests|tools)/[\w./-]*)`")
MAKE = re.compile(r"(?<![\w./-])make ([a-z][\w-]*)")


def missing_files(name: str, text: str) -> Iterator[str]:
    """Yield the files that a text links to, or names, and that are not there."""
    for target in LINK.findall(without(text, COMMENT, CODE)):
        path = target.split("#")[0]
        if path and not re.match(r"[a-z]+:", path) and not ((ROOT / name).parent / path).exists():
            yield f"{name}: no {target}"
    for pattern in (ON_COLAB, NOTEBOOK, PATH):
        yield from (f"{name}: no {path}" for path in pattern.findall(text) if not (ROOT / path).exists())


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


def missing_targets(name: str, text: str, targets: set[str]) -> Iterator[str]:
    """Yield the targets that a text tells its reader to make and that the Makefile lacks."""
    commands = "\n".join(match[0] for match in CODE.finditer(text))
    yield from (f"{name}: no target for `make {target}`" for target in MAKE.findall(commands) if target not in targets)


def test_every_file_that_a_page_names_is_there():
    assert not [wrong for name, text in prose().items() for wrong in missing_files(name, text)]


def test_every_target_of_make_that_is_named_is_in_the_makefile():
    targets = make_targets((ROOT / "Makefile").read_text())
    code = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for folder in ("course_lib", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert not [wrong for name, text in (prose() | code).items() for wrong in missing_targets(name, text, targets)]


def targets_of_small(name: str, text: str) -> Iterator[str]:
    return missing_targets(name, text, {"book"})


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (missing_files, "[here](book/intro.md#top), [there](https://example.org/x), `[x](y)`", "[here](book/outro.md)"),
        (missing_files, "[a heading](#make-it-yours)", "a ![picture](book/_static/none.svg)"),
        (missing_files, "https://colab.research.google.com/github/a/b/blob/main/README.md", ""),
        (missing_files, "", "[x](https://colab.research.google.com/github/a/b/blob/main/book/none.ipynb)"),
        (missing_files, "make check NOTEBOOK=README.md", "make check NOTEBOOK=book/none.ipynb"),
        (missing_files, "`book/` and `runs/none`", "`course_lib/none/`"),
        (
            lambda name, text: missing_targets(name, text, {"book"}),
            "`make book` to make one; we make two",
            "`make bok`",
        ),
        (targets_of_small, "`make book` to make one; we make two", "`make bok`"),
        (targets_of_small, "", "```sh\ncd x && make boook\n```"),
    ],
)
def test_what_is_not_there_is_found(check: Callable[[str, str], Iterator[str]], good: str, bad: str):
    assert list(check("README.md", good)) == []
    assert not bad or list(check("README.md", bad))


def test_targets_are_read_from_the_makefile():
    assert make_targets("VENV := x\nhelp: ## say\nclaims-full: a b\n.PHONY: none\n\tsetup: x\nBIN:=y\n") == {
        "help",
        "claims-full",
    }
