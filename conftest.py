"""What holds for every test, and for every kernel that a test starts."""

import os
from collections.abc import Callable, Generator

# Kernels inherit these. Progress bars print times; the stored outputs are those of the small data.
os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("COURSE_SCALE", "quick")

import matplotlib
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook
from nbval.plugin import IPyNbCell

matplotlib.use("Agg")  # here only: a kernel still draws into its notebook

# From now on every tensor that course_lib takes or returns is checked against the shape that its signature declares.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand where a float is declared
install_import_hook("course_lib", "conftest.checked")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that turns samples of the slow tests into the whole of them."""
    parser.addoption("--thorough", action="store_true", help="thousands of malformed inputs, every moment of a stop")


@pytest.fixture(scope="session")
def of_many(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """How many cases a slow test tries: a sample, or with --thorough all of them."""
    return lambda sample, all_of_them: all_of_them if request.config.getoption("--thorough") else sample


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every unit test with the threads of the quick scale, whatever the one before it has set.

    Notebooks are no unit tests: each sets its threads itself, as it does for a reader.
    """
    from course_lib import runtime

    monkeypatch.delenv("COURSE_THREADS", raising=False)
    runtime.use_threads("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Compare coarsely what a cell draws, where nbval compared what it prints; nbval itself passes over pictures."""
    result = yield
    if isinstance(item, IPyNbCell) and item.options["check"]:
        import pictures  # of tools/, which pytest puts on the path after this file

        problem = pictures.compare(item.cell.outputs, item.test_outputs)
        if problem:
            item.raise_cell_error(f"{problem}. Look at both; `make execute` stores the new one")
    return result
