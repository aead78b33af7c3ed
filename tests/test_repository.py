"""The repository's own promises: pins that fit the bounds, one name everywhere, nothing of anybody's machine."""

import re
import shutil
import subprocess
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


@pytest.mark.parametrize("name", ["", "course", "ada/", "/course", "a/b/c", "ada/co urse", "ada/course.git", "ada/.."])
def test_make_repo_refuses_what_is_not_a_repository(name, course):
    before = (course / "_config.yml").read_text()
    with pytest.raises(ValueError, match="give owner/name"):
        notebooks.set_repository(name, course)
    assert (course / "_config.yml").read_text() == before


def test_a_refused_name_is_one_line_and_exit_code_2(capsys):
    assert notebooks.main(["repo", "nonsense"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_course_names_one_repository():
    """Every setup cell and every link to Colab names the repository of `_config.yml`."""
    pages = [ROOT / "README.md", *(ROOT / "book").rglob("*.md"), *notebooks.notebook_paths()]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    installed = re.findall(rf"course-lib @ git\+https://github\.com/({notebooks.GITHUB_NAME})@", text)
    opened = re.findall(rf"colab\.research\.google\.com/github/({notebooks.GITHUB_NAME})", text)
    assert {*installed, *opened} == {notebooks.configured_repository()}
