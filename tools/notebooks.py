"""Run a notebook and store its outputs, or point the course at a fork. `make execute` and `make repo` call this.

Everything that all notebooks share is written here once: the setup cell and the metadata.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Every notebook carries exactly this: no version of Python or of the kernel, which would change with each machine.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What it may carry besides: Colab starts a GPU machine for {"accelerator": "GPU", "colab": {"gpuType": "T4"}}.
COLAB_METADATA = ("accelerator", "colab")
TIMING_METADATA = ("execution", "ExecuteTime")

# "owner/name" as GitHub allows it: single hyphens inside an owner; not only dots and hyphens in a name.
GITHUB_NAME = r"(?=[^/]{1,39}/)[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*/(?=[.-]*[A-Za-z0-9_])[A-Za-z0-9_.-]{1,100}"
GITHUB_ADDRESS = r"(?:https?://|(?:ssh://)?git@)?github\.com[/:](.+?)(?:\.git)?/?"


def setup_cell(repository: str) -> str:
    """Return the first code cell of every notebook, for a repository named "owner/name"."""
    return f"""\
try:
    import course_lib
except ImportError:
    %pip install -q "course-lib @ git+https://github.com/{repository}@main"
    import course_lib"""


def notebook_paths(root: Path = ROOT) -> list[Path]:
    """Return the notebooks of the book, in order, without what editors and builds leave behind."""
    return sorted(
        path
        for path in (root / "book").rglob("*.ipynb")
        if not any(part.startswith((".", "_")) for part in path.relative_to(root).parts)
    )


def execute(path: Path) -> None:
    """Run a notebook from top to bottom on a fresh kernel and store its outputs, without timings or versions.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the file is left as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    # The kernel of this environment, even where the user has registered another one under the same name.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
    ).execute()
    tidy(notebook)
    unfinished = path.with_name(f".{path.name}.unfinished")
    nbformat.write(notebook, unfinished)
    unfinished.replace(path)


def tidy(notebook: dict) -> None:
    """Drop, in place, the metadata that changes from run to run and from machine to machine."""
    colab = {key: notebook["metadata"][key] for key in COLAB_METADATA if key in notebook["metadata"]}
    notebook["metadata"] = type(notebook["metadata"])(METADATA | colab)
    for cell in notebook["cells"]:
        for key in TIMING_METADATA:
            cell["metadata"].pop(key, None)


def configured_repository(root: Path = ROOT) -> str:
    """Return the "owner/name" that `_config.yml` names.

    Raises:
        ValueError: it names none.
    """
    config = (root / "_config.yml").read_text(encoding="utf-8")
    found = re.search(rf"^  url: https://github\.com/({GITHUB_NAME})$", config, re.MULTILINE)
    if not found:
        raise ValueError("_config.yml has no line '  url: https://github.com/owner/name' under 'repository:'")
    return found[1]


def set_repository(repository: str, root: Path = ROOT) -> list[Path]:
    """Point `_config.yml`, every setup cell and every link to the course at a repository; return the files changed.

    A setup cell is rewritten whatever repository it named; a link is rewritten where it named the one in `_config.yml`.

    Args:
        repository: "owner/name", or an address on GitHub that ends so.

    Raises:
        ValueError: GitHub allows no such repository. Nothing is changed.
    """
    given = repository
    if address := re.fullmatch(GITHUB_ADDRESS, repository):
        repository = address[1]
    if not re.fullmatch(GITHUB_NAME, repository) or repository.endswith(".git"):
        raise ValueError(
            f"REPO={given!r} does not name a GitHub repository: give owner/name, "
            "for example: make repo REPO=ada/gan-course"
        )
    link = rf"github(?:\.com)?/{re.escape(configured_repository(root))}(?![\w-])"
    setup = rf"(?<=course-lib @ git\+https://)github\.com/{GITHUB_NAME}(?=@)"
    pages = [root / "_config.yml", root / "README.md", *sorted((root / "book").rglob("*.md")), *notebook_paths(root)]
    changed = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        new_text = re.sub(f"{setup}|{link}", lambda old: f"{old[0].split('/')[0]}/{repository}", text)
        if new_text != text:
            page.write_text(new_text, encoding="utf-8")
            changed.append(page)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for input that cannot be used, 1 for a cell that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("execute", help="run a notebook and store its outputs").add_argument("notebook", type=Path)
    commands.add_parser("repo", help="point the course at a fork").add_argument("repository", metavar="owner/name")
    chosen = parser.parse_args(arguments)
    if chosen.command == "repo":
        try:
            changed = set_repository(chosen.repository)
        except ValueError as error:
            print(f"make repo: {error}", file=sys.stderr)
            return 2
        print(f"The course now points at https://github.com/{configured_repository()} ({len(changed)} files changed)")
        return 0

    from nbclient.exceptions import CellExecutionError

    started = time.monotonic()
    try:
        execute(chosen.notebook)
    except CellExecutionError as error:
        print(f"{error}\nmake execute: a cell of {chosen.notebook} failed; the file is as it was", file=sys.stderr)
        return 1
    print(f"{chosen.notebook}: executed and stored in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
