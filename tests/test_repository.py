"""The repository's own promises: pins that fit the bounds, one name everywhere, nothing of anybody's machine."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import notebooks

ROOT = notebooks.ROOT
# Written in two pieces, so that this file keeps its own rule.
REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.", "ana" + "conda.org", "download." + "pytorch.org"]
MACHINE_FOLDERS = re.compile("(?<![\\w.])/(?:" + "home|root|Users|tmp|work" + ")/\\w")


UNFINISHED = re.compile(r"\b(?:" + "TO" + "DO|FIX" + "ME|XX" + r"X|TB" + r"D)\b|\b[Ll]orem [Ii]" + "psum")
PICTURE = re.compile(r'"image/(?:png|jpeg)": (?:"[^"]*"|\[[^\]]*\])')
NOT_OURS = ROOT / "book" / "_static" / "mathjax"


def files_of_the_project() -> list[Path]:
    """What git tracks or would track; every file, where git cannot say (a downloaded archive, another user's clone)."""
    if shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    made = {".git", ".venv", "_build", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.relative_to(ROOT).parts)]


def texts_of_the_project() -> Iterator[tuple[Path, str]]:
    """Yield every file that is text, and what stands in it; of a notebook all but its pictures."""
    for path in files_of_the_project():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a font or a picture
        yield path, PICTURE.sub("", text) if path.suffix == ".ipynb" else text


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {requirement.name.lower(): requirement for requirement in parsed}


# ── Versions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_pin_is_exact_and_fits_the_bound_of_the_package():
    pins = requirements((ROOT / "requirements.txt").read_text().splitlines())
    for name, pin in pins.items():
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)), f"{name} is not pinned exactly"
    bounds = requirements(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert bounds
    for name, bound in bounds.items():
        assert name in pins, f"{name} is needed by course_lib but not pinned"
        assert {part.operator for part in bound.specifier} == {">="}, f"{name}: lower bounds only, or Colab reinstalls"
        assert bound.specifier.contains(str(pins[name].specifier).removeprefix("==")), f"{name}: pin below its bound"


def test_version_is_the_same_in_the_package_and_in_its_metadata():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "course_lib" / "__init__.py").read_text()


# ── Nothing of a machine ──────────────────────────────────────────────────────────────────────────────────────────


def test_no_file_names_a_package_registry_or_a_folder_of_somebodys_machine():
    found = []
    for path, text in texts_of_the_project():
        found += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRIES if host in text]
        if path.suffix != ".ipynb":  # test_notebooks.py looks into notebooks
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_FOLDERS.finditer(text)]
    assert not found, "\n".join(found)


def test_the_search_for_machine_folders_can_fail():
    assert MACHINE_FOLDERS.search("cache = '/ho" + "me/ada/data'")
    assert not MACHINE_FOLDERS.search("https://example.org/home/page and ~/data and book/work/x")


# ── Nothing left to do ────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_marked_as_unfinished():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in texts_of_the_project()
        if NOT_OURS not in path.parents
        for match in UNFINISHED.finditer(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["# TO" + "DO: loss", "<!-- FIX" + "ME -->", "see XX" + "X", "(TB" + "D)", "Lorem ip" + "sum dolor"]
)
def test_the_search_for_what_is_unfinished_can_fail(text):
    assert UNFINISHED.search(text)
    assert UNFINISHED.search(f'{{"source": ["{text}"], "data": {{"image/png": "AAAA"}}}}')


def test_the_search_for_what_is_unfinished_passes_over_pictures_and_ordinary_words():
    picture = '"image/png": "iVBO/TO' + 'DO/w0KGgo=\\n", "text/plain": "<Figure>"'
    assert not UNFINISHED.search(PICTURE.sub("", picture))
    assert not UNFINISHED.search("what to do, todos, xxx, XX" + "XL, a stubborn lorem")


# ── make repo ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def course(tmp_path):
    """A course of four files; its second notebook names another repository than the rest."""
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/OWNER/REPO\n  branch: main\n")
    (tmp_path / "README.md").write_text(
        "git clone https://github.com/OWNER/REPO.git, https://colab.research.google.com/github/OWNER/REPO/blob/main/a, "
        "https://github.com/OWNER/REPO-other and https://github.com/pytorch/pytorch\n"
    )
    for name, repository in {"a": "OWNER/REPO", "b": "some-one/else.where"}.items():
        cell = notebooks.setup_cell(repository).replace('"', '\\"').replace("\n", "\\n")
        (tmp_path / "book" / f"{name}.ipynb").write_text(f'{{"cells": [{{"source": "{cell}"}}]}}\n')
    return tmp_path


def test_make_repo_changes_config_setup_cells_and_links_and_nothing_else(course):
    assert len(notebooks.set_repository("ada/gan-course_2.0", course)) == 4
    assert notebooks.configured_repository(course) == "ada/gan-course_2.0"
    for name in "ab":
        text = (course / "book" / f"{name}.ipynb").read_text()
        assert text.count("git+https://github.com/ada/gan-course_2.0@main") == 1
    assert (course / "README.md").read_text() == (
        "git clone https://github.com/ada/gan-course_2.0.git, "
        "https://colab.research.google.com/github/ada/gan-course_2.0/blob/main/a, "
        "https://github.com/OWNER/REPO-other and https://github.com/pytorch/pytorch\n"
    )


def test_make_repo_can_be_repeated_and_undone(course):
    (course / "book" / "b.ipynb").unlink()
    before = {path: path.read_text() for path in course.rglob("*.*") if path.is_file()}
    notebooks.set_repository("ada/gan-course", course)
    assert notebooks.set_repository("ada/gan-course", course) == []
    notebooks.set_repository("OWNER/REPO", course)
    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/ada/gan-course",
        "https://github.com/ada/gan-course/",
        "https://github.com/ada/gan-course.git",
        "github.com/ada/gan-course",
        "git@github.com:ada/gan-course.git",
        "ssh://git@github.com/ada/gan-course.git",
    ],
)
def test_make_repo_takes_the_address_that_github_shows(address, course):
    assert notebooks.set_repository(address, course)
    assert notebooks.configured_repository(course) == "ada/gan-course"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "-h",
            "course",
            "ada/",
            "/course",
            "a/b/c",
            "ada/co urse",
            "ada/course.git",
            "ada/..",
            "ada/.",
            "ada/---",
        ),
        *("a-/b", "-a/b", "a--b/c", f"{'a' * 40}/b", f"a/{'b' * 101}"),
        *("https://github.com/ada", "https://github.com/a-/b.git", "https://example.org/ada/course"),
    ],
)
def test_make_repo_refuses_what_is_not_a_repository(name, course):
    before = (course / "_config.yml").read_text()
    with pytest.raises(ValueError, match="give owner/name"):
        notebooks.set_repository(name, course)
    assert (course / "_config.yml").read_text() == before


def test_a_refused_name_is_one_line_and_exit_code_2(capsys):
    assert notebooks.main(["repo", "nonsense"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("page", ["README.md", "book/appendix/running.md"])
def test_what_the_page_says_about_cloning_can_be_pasted_before_and_after_make_repo(page, course):
    copy = course / "book" / "page.md"
    copy.write_text((ROOT / page).read_text(encoding="utf-8"), encoding="utf-8")
    (course / "_config.yml").write_text((ROOT / "_config.yml").read_text(encoding="utf-8"), encoding="utf-8")
    for repository in (notebooks.configured_repository(), "ada/gan-course"):
        notebooks.set_repository(repository, course)
        clone = re.search(
            r"^git clone https://github\.com/(\S+)(?: (\S+))? && cd (\S+)$", copy.read_text(), re.MULTILINE
        )
        assert clone[1] == repository
        assert clone[3] == (clone[2] or repository.split("/")[1])


# ── make ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make(tmp_path):
    """Run make on a copy of the Makefile, where nothing is installed and nothing can be: python3 is `false`."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "tools/notebooks.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def run(*arguments: str, python: str = "false") -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", *arguments, f"PYTHON={python}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
@pytest.mark.parametrize("target", ["execute", "check"])
def test_make_without_a_notebook_asks_for_one_before_it_installs_anything(target, make):
    asked = make(target)
    assert asked.returncode == 2
    assert "Name one, for example: make" in asked.stderr
    assert "make setup" not in asked.stderr


@needs_make
@pytest.mark.parametrize("target", ["need-notebook", "execute", "check"])
@pytest.mark.parametrize(
    "name", ['x" ; touch pwned ; echo "', "$(touch pwned)", "`touch pwned`", "$(shell touch pwned)"]
)
def test_make_takes_the_name_of_a_notebook_as_a_name(target, name, make, tmp_path):
    asked = make(target, f"NOTEBOOK={name}")
    assert asked.returncode == 2
    assert f"NOTEBOOK='{name}'" in asked.stderr
    assert not (tmp_path / "pwned").exists()


@needs_make
@pytest.mark.parametrize("written", ["book/a b.ipynb", "./book/../book/a b.ipynb", "{root}/book/a b.ipynb"])
def test_make_check_names_a_notebook_as_the_tests_do_whichever_way_it_is_written(written, make, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "a b.ipynb").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / ".installed").touch()
    (tmp_path / "pytest.py").write_text("import sys\nprint(sys.argv[1:])")  # stands where pytest would
    checked = make("check", f"NOTEBOOK={written.format(root=tmp_path)}")
    assert checked.returncode == 0, checked.stderr
    assert "['tests/test_notebooks.py', '-k', 'book/a b.ipynb']" in checked.stdout
    assert "['--nbval', 'book/a b.ipynb']" in checked.stdout


@needs_make
@pytest.mark.parametrize("name", ["-h", "--help", "", "$(shell touch pwned)"])
def test_make_repo_refuses_what_looks_like_an_option(name, make, tmp_path):
    refused = make("repo", f"REPO={name}", python=sys.executable)
    assert refused.returncode == 2
    assert "give owner/name" in refused.stderr
    assert not (tmp_path / "pwned").exists()


# ── One repository ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_course_names_one_repository():
    """Every setup cell and every link to Colab names the repository of `_config.yml`."""
    pages = [ROOT / "README.md", *(ROOT / "book").rglob("*.md"), *notebooks.notebook_paths()]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    installed = re.findall(rf"course-lib @ git\+https://github\.com/({notebooks.GITHUB_NAME})@", text)
    opened = re.findall(rf"colab\.research\.google\.com/github/({notebooks.GITHUB_NAME})", text)
    assert {*installed, *opened} == {notebooks.configured_repository()}
