"""The book builds without a warning, shows everything offline, and links to the repository it was built from."""

import html.parser
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest

import fork_links
import notebooks

ROOT = notebooks.ROOT
# What a browser fetches while it shows a page: (element, attribute). A link that the reader clicks is not among them.
FETCHED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "poster"),
    ("video", "src"),
}
ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
FROM_A_STYLE = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""")


@dataclass
class Page(html.parser.HTMLParser):
    """What the checks need to know of a built page."""

    text: str
    fetched: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    pictures: list[dict[str, str | None]] = field(default_factory=list)
    mathematics: bool = False

    def __post_init__(self):
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        # rel=canonical, next and the like are not fetched.
        if tag != "link" or re.search("stylesheet|icon|load|manifest", attributes.get("rel") or ""):
            self.fetched += [value or "" for name, value in attrs if (tag, name) in FETCHED]
        if tag == "a":
            self.links.append(attributes.get("href") or "")
        if tag == "img":
            self.pictures.append(attributes)
        self.mathematics |= "math" in (attributes.get("class") or "").split()


def elsewhere(page: Page) -> list[str]:
    """Return what showing a page would fetch from another machine."""
    return [address for address in page.fetched if ELSEWHERE.match(address)] + FROM_A_STYLE.findall(page.text)


def is_from_a_cell(picture: dict[str, str | None]) -> bool:
    source = picture.get("src") or ""
    return "_images/" in source or source.startswith("data:image/gif")  # an animation is a part of its page


def undescribed(page: Page) -> list[str]:
    """Return the pictures without words for readers who cannot see them; Sphinx puts the file name where none are."""
    found = []
    for picture in page.pictures:
        alternative = picture.get("alt") or ""
        fewest = 3 if is_from_a_cell(picture) else 1  # words; the theme has logos
        if len(alternative.split()) < fewest or re.search(r"\.(?:png|svg|jpe?g|gif|webp)\s*$", alternative):
            found.append(picture.get("src") or "")
    return found


def build(folder: Path, **environment: str) -> tuple[Path, list[str]]:
    """Build the book outside the working tree; return the folder with its pages, and what went wrong."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), "-W", "-n", "--keep-going"]
    outside_github = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    built = subprocess.run(
        [*command, "--path-output", str(folder)],
        env=outside_github | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = re.sub(r"\x1b\[[\d;]*m", "", built.stderr).splitlines()  # without its colours
    warnings = [line for line in said if "WARNING:" in line or "ERROR:" in line]
    if built.returncode and not warnings:
        warnings = [*built.stdout.splitlines(), *said][-30:]
    return folder / "_build" / "html", warnings


def read_pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, list[str]]:
    return build(tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="module")
def site(built) -> Path:
    return built[0]


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    return read_pages(site)


def chapters(pages: dict[str, Page]) -> dict[str, Page]:
    """The pages that somebody wrote; the rest (search, index) are the theme's."""
    return {name: page for name, page in pages.items() if name.startswith("book/")}


# ── The built book ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_book_builds_without_a_warning(built):
    _, warnings = built
    assert not warnings, "\n".join(warnings)


def test_every_notebook_and_page_is_in_the_book(pages):
    written = [*notebooks.notebook_paths(), *(ROOT / "book").rglob("*.md")]
    expected = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in written}
    assert expected == set(chapters(pages)), "_toc.yml and the files under book/ differ"


def test_no_page_fetches_anything_from_elsewhere(pages):
    found = {name: elsewhere(page) for name, page in pages.items() if elsewhere(page)}
    assert not found


def test_no_style_sheet_fetches_anything_from_elsewhere(site):
    sheets = {path.name: FROM_A_STYLE.findall(path.read_text(encoding="utf-8")) for path in site.rglob("*.css")}
    assert sheets
    assert not any(sheets.values()), sheets


def test_mathematics_is_set_by_the_books_own_mathjax(site, pages):
    with_mathematics = {name: page for name, page in pages.items() if page.mathematics}
    assert with_mathematics, "no page has a formula; the chapters have many"
    for name, page in with_mathematics.items():
        scripts = [address.split("?")[0] for address in page.fetched if "mathjax/tex-mml-chtml.js" in address]
        assert len(scripts) == 1, f"{name} does not load MathJax"
        assert ((site / name).parent / scripts[0]).is_file(), f"{name}: {scripts[0]} is not in the book"


def test_mathjax_finds_its_fonts_and_extensions_beside_it(site):
    mathjax = site / "_static" / "mathjax"
    script = (mathjax / "tex-mml-chtml.js").read_text(encoding="utf-8")
    fonts = {path.name for path in (mathjax / "output" / "chtml" / "fonts" / "woff-v2").glob("*.woff")}
    named = set(re.findall(r"(MathJax_[A-Za-z0-9-]+)\.woff|%%URL%%/(MathJax_[A-Za-z0-9-]+)", script))
    wanted = {f"{first or second}.woff" for first, second in named}
    assert wanted and wanted <= fonts, wanted - fonts
    extensions = {path.stem for path in (mathjax / "input" / "tex" / "extensions").glob("*.js")}
    assert {"ams", "boldsymbol", "cancel", "color", "mathtools", "newcommand", "physics"} <= extensions
    assert (mathjax / "a11y" / "assistive-mml.js").is_file()


def test_every_picture_has_a_text_alternative(pages):
    bare = {name: undescribed(page) for name, page in chapters(pages).items()}
    assert not {name: sources for name, sources in bare.items() if sources}


def test_pictures_carry_the_words_that_their_cells_give_them(pages):
    for path in notebooks.notebook_paths():
        cells = nbformat.read(path, as_version=4).cells
        shown = [cell for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        words = [cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "") for cell in shown]
        page = pages[path.relative_to(ROOT).with_suffix(".html").as_posix()]
        built = [" ".join((picture["alt"] or "").split()) for picture in page.pictures if is_from_a_cell(picture)]
        assert built == [" ".join(alternative.split()) for alternative in words], path.name


# ── Links that follow a fork ──────────────────────────────────────────────────────────────────────────────────────


def links_to(repository: str, branch: str, name: str, page: Page) -> None:
    """Assert that a page's buttons lead to a repository."""
    source = notebooks.ROOT / Path(name).with_suffix(".ipynb")
    assert f"https://github.com/{repository}" in page.links, f"{name}: no link to the source"
    if source.is_file():
        colab = (
            f"https://colab.research.google.com/github/{repository}/blob/{branch}/{Path(name).with_suffix('.ipynb')}"
        )
        assert colab in page.links, f"{name}: no link to Colab"


def test_buttons_lead_to_the_configured_repository(pages):
    for name, page in chapters(pages).items():
        links_to(notebooks.configured_repository(), "main", name, page)


def test_buttons_of_a_forks_book_lead_to_the_fork(tmp_path):
    fork = {
        "GITHUB_REPOSITORY": "ada/gan-course",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REF_NAME": "spring",
    }
    site, _ = build(tmp_path, **fork)
    pages = chapters(read_pages(site))
    assert pages
    for name, page in pages.items():
        links_to("ada/gan-course", "spring", name, page)
        buttons = [link for link in page.links if f"/{notebooks.configured_repository()}/issues" in link]
        assert not buttons, f"{name} still leads to the original: {buttons}"


def test_a_book_built_at_home_keeps_the_configured_links():
    assert fork_links.links_from_environment({}) == {}


def test_a_book_built_for_a_pull_request_links_to_its_branch():
    environment = {"GITHUB_REPOSITORY": "ada/x", "GITHUB_REF_NAME": "12/merge", "GITHUB_HEAD_REF": "typo"}
    assert fork_links.links_from_environment(environment) == {
        "repository_url": "https://github.com/ada/x",
        "repository_branch": "typo",
    }


# ── The checks can fail ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example.org/x.css">',
        '<link rel="preload" as="font" href="https://cdn.example.org/x.woff2">',
        '<img src="https://example.org/x.png" alt="a picture">',
        '<div style="background: url(https://example.org/x.png)"></div>',
        '<style>@import "https://example.org/x.css";</style>',
    ],
)
def test_something_fetched_from_elsewhere_is_found(text):
    assert elsewhere(Page(text))


@pytest.mark.parametrize(
    "alternative",
    ['alt="../_images/7758.png"', 'alt=""', "", 'alt="Figure 3.png"', 'alt="a curve"', 'alt="a curve in curve.svg"'],
)
def test_a_picture_without_words_is_found(alternative):
    assert undescribed(Page(f'<img {alternative} src="../_images/7758.png"/>')) == ["../_images/7758.png"]


def test_an_animation_without_words_is_found():
    assert undescribed(Page('<img src="data:image/gif;base64,R0lGODlh" alt="a ring">'))
    assert not undescribed(Page('<img src="data:image/gif;base64,R0lGODlh" alt="points gather into a ring">'))


def test_a_picture_with_words_is_let_pass():
    assert not undescribed(
        Page('<img src="../_images/7758.png" alt="A curve that rises"/><img src="x.svg" alt="Logo">')
    )


def test_a_link_to_elsewhere_is_not_something_fetched():
    assert not elsewhere(
        Page('<a href="https://example.org">there</a><link rel="canonical" href="https://example.org">')
    )
