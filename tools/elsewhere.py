"""Run notebooks as other machines and other seeds would, and say which claims hold there. `make elsewhere` calls this.

python tools/elsewhere.py all        everything below but `fresh`, then the table and the page
python tools/elsewhere.py processors other processors, simulated, and two threads: outputs are compared to the letter
python tools/elsewhere.py seeds      every seed moved by fifteen offsets: the bounds are set by these
python tools/elsewhere.py fresh      five further offsets, which set nothing
python tools/elsewhere.py mutations  deliberate damage, one at a time: the claims named for it must fail
python tools/elsewhere.py report     the table alone, from what has been measured
python tools/elsewhere.py check      which claims were never measured elsewhere, or have other bounds since

Name notebooks to choose among them. A run that was made is not made again while notebook, package and versions stay as
they are; bounds, comments and Markdown may change, for a measurement does not depend on them.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from tqdm import tqdm

import elsewhere_page
import elsewhere_source as source
import elsewhere_table as table
import notebooks

ROOT = notebooks.ROOT
RUNS = ROOT / "runs" / "elsewhere"
OFFSETS = tuple(range(11_000, 26_000, 1_000))
FRESH = tuple(range(26_000, 31_000, 1_000))
NUMPY_FEATURES = ("X86_V3", "X86_V4", "AVX512_ICL", "AVX512_SPR")

# What decides about instructions and threads. Nothing of it reaches a run from outside.
OWN_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "COURSE_THREADS",
)


@dataclass(frozen=True)
class Variant:
    """One way to run a notebook.

    Args:
        name: which way; also the name of its file.
        environment: variables that the kernel is given.
        expected: what the kernel's proof must say, where it is asked.
        without: features of NumPy that must be off.
        offset: what is added to every seed.
        compared: whether outputs are compared as in `make test`; else claims are measured, held or not.
        threads: of every library, whenever a claim is made.
        mutation: deliberate damage, an entry of tests/mutations.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    offset: int = 0
    compared: bool = False
    threads: int = 1
    mutation: dict[str, Any] | None = None


# On a processor that Intel did not make, MKL ignores MKL_ENABLE_INSTRUCTIONS; MKL_CBWR=COMPATIBLE is its oldest path
# everywhere, so the oldest processor takes that, too, and can prove it.
PROCESSORS = {
    "oldest": Variant(
        "oldest",
        environment={
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "MKL_CBWR": "COMPATIBLE",
            "OPENBLAS_CORETYPE": "Nehalem",
            "NPY_DISABLE_CPU_FEATURES": " ".join(NUMPY_FEATURES),
        },
        expected={"torch": "DEFAULT", "onednn": "Intel SSE4.1", "mkl": "COMPATIBLE", "openblas": ["Nehalem"]},
        without=NUMPY_FEATURES,
        compared=True,
    ),
    "avx2": Variant(
        "avx2",
        environment={
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "OPENBLAS_CORETYPE": "Haswell",
            "NPY_DISABLE_CPU_FEATURES": " ".join(NUMPY_FEATURES[1:]),
        },
        expected={"torch": "AVX2", "onednn": "Intel AVX2", "openblas": ["Haswell"]},
        without=NUMPY_FEATURES[1:],
        compared=True,
    ),
    "mkl_compatible": Variant(
        "mkl_compatible", environment={"MKL_CBWR": "COMPATIBLE"}, expected={"mkl": "COMPATIBLE"}, compared=True
    ),
    "two_threads": Variant("two_threads", environment={"COURSE_THREADS": "2"}, compared=True, threads=2),
}


class ElsewhereError(Exception):
    """A run could not be made, or did not run as it should have; it says what to do."""


def variants(path: Path, kinds: list[str], only: list[str]) -> list[Variant]:
    """Return the ways in which a notebook is to be run."""
    found = []
    if "processors" in kinds:
        found += [variant for name, variant in PROCESSORS.items() if not only or name in only]
    if "seeds" in kinds:
        found += [seeds_moved(offset) for offset in OFFSETS]
    if "fresh" in kinds:
        found += [seeds_moved(offset) for offset in FRESH]
    if "mutations" in kinds:
        found += [Variant(f"mutation: {entry['name']}", mutation=entry) for entry in mutations(path)["mutation"]]
    return found


def seeds_moved(offset: int) -> Variant:
    """Return the run in which every seed is moved by an offset."""
    return Variant(f"seeds+{offset}", offset=offset)


def mutations(path: Path) -> dict[str, Any]:
    """Return what tests/mutations says of a notebook: its mutations, and the claims that no seed moves."""
    file = source.MUTATIONS / f"{path.stem}.toml"
    if not file.is_file():
        return {"fixed": [], "mutation": []}
    return {"fixed": [], "mutation": []} | tomllib.loads(file.read_text(encoding="utf-8"))


# ── One run ───────────────────────────────────────────────────────────────────────────────────────────────────────


def result_file(path: Path, variant: Variant) -> Path:
    """Return where the result of a run lies; the name changes with everything that the result depends on."""
    what = [versions(), variant.environment, variant.offset, variant.mutation and source.damage(variant.mutation)]
    if variant.compared:  # then bounds and stored outputs decide, too
        what.append(source.full_text(path))
    name = "".join(letter if letter.isalnum() else "_" for letter in variant.name)[:60]
    return RUNS / path.stem / f"{name}-{source.digest(source.measured_text(path), what)}.json"


@cache
def versions() -> str:
    """Name the versions that decide about a result, and the processor's kind."""
    from importlib.metadata import version

    libraries = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "accelerate")
    return json.dumps([platform.python_version(), platform.machine(), *(f"{x} {version(x)}" for x in libraries)])


def run(path: Path, variant: Variant) -> dict[str, Any]:
    """Run a notebook in one of the ways, or read what came out before.

    Raises:
        ElsewhereError: the simulation did not take effect, or the kernel did not start.
    """
    file = result_file(path, variant)
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
        found = _run(path, variant, Path(folder))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    partial.replace(file)
    return found


def _run(path: Path, variant: Variant, folder: Path) -> dict[str, Any]:
    log = folder / "claims.jsonl"
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-elsewhere.py").write_text("__import__('elsewhere_kernel').start()\n")
    search = [str(ROOT / "tools")]
    if variant.mutation:
        path, search = damaged_copy(path, variant.mutation, folder), [str(folder), *search]
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES} | {
        "COURSE_SCALE": "quick",
        "TQDM_DISABLE": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join(search),
        "COURSE_ELSEWHERE": json.dumps({"log": str(log), "offset": variant.offset, "measure": not variant.compared}),
        **variant.environment,
    }
    how = ["--nbval"] if variant.compared else ["--nbval-lax"]
    command = [sys.executable, "-m", "pytest", *how, "-q", "-c", "pyproject.toml", "-p", "no:cacheprovider", str(path)]
    code, said = call(command, environment)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    proof = next((line["proof"] for line in lines if "proof" in line), None)
    if proof is None:
        raise ElsewhereError(f"{path.stem}, {variant.name}: the kernel did not start as asked:\n{said[-3000:]}")
    check_proof(path, variant, proof)
    claims = [line for line in lines if "claim" in line]
    threads = {number for line in claims for number in line["threads"]}
    if threads - {variant.threads}:
        raise ElsewhereError(
            f"{path.stem}, {variant.name}: a claim was measured with {sorted(threads)} threads instead of "
            f"{variant.threads}: the notebook must call runtime.use_threads after its imports"
        )
    return {
        "notebook": path.stem,
        "variant": variant.name,
        "passed": code == 0,
        "said": "" if code == 0 else said[-6000:],
        "claims": {line["claim"]: line["measured"] for line in claims},
        "proof": proof,
    }


def check_proof(path: Path, variant: Variant, proof: dict[str, Any]) -> None:
    """Abort where the kernel says that it is not what it should simulate: unknown names only make libraries warn."""
    wrong = [f"{key} is {proof[key]}, not {value}" for key, value in variant.expected.items() if proof[key] != value]
    wrong += [f"NumPy still uses {name}" for name in variant.without if name in proof["numpy"]]
    if wrong:
        raise ElsewhereError(
            f"{path.stem}: the processor {variant.name!r} is not simulated ({'; '.join(wrong)}). "
            "This needs an x86-64 processor that has at least these instructions, and the pinned versions."
        )


def damaged_copy(path: Path, mutation: dict[str, Any], folder: Path) -> Path:
    """Copy a notebook, and the package as links, with one piece of text replaced; return the notebook's copy.

    The copy ends with the cell of the last claim that should notice.
    """
    notebook = nbformat.read(path, as_version=4)
    facts = set(mutation["catches"])
    last = max((i for i, cell in enumerate(notebook.cells) if facts & source.facts(cell)), default=len(notebook.cells))
    notebook.cells = notebook.cells[: last + 1]
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("tags", None)
    if mutation["file"] == "notebook":
        cell = source.cell_with(notebook, mutation)
        cell.source = cell.source.replace(mutation["old"], mutation["new"])
    else:
        shutil.copytree(
            ROOT / "course_lib",
            folder / "course_lib",
            copy_function=os.symlink,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        target = folder / mutation["file"]
        text = source.text_with(ROOT / mutation["file"], mutation)
        target.unlink()
        target.write_text(text.replace(mutation["old"], mutation["new"]), encoding="utf-8")
    copy = folder / path.name
    nbformat.write(notebook, copy)
    return copy


RUNNING: set[subprocess.Popen] = set()


def call(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command in a group of its own, so that it can be stopped with all that it started."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    RUNNING.add(process)
    try:
        said, _ = process.communicate()
    finally:
        RUNNING.discard(process)
    if process.returncode < 0 or process.returncode == 130:
        raise ElsewhereError(f"stopped by signal {abs(process.returncode)}: {' '.join(command[-1:])}")
    return process.returncode, said


# ── Many runs ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def stoppable(pool: ThreadPoolExecutor) -> Iterator[None]:
    """On Ctrl-C or SIGTERM begin no further run and end those that are under way; what is finished is kept."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(RUNNING):
            process.terminate()  # pytest's end is noticed by its kernel, which ends, too


def run_all(paths: list[Path], kinds: list[str], only: list[str], jobs: int) -> list[str]:
    """Make all runs that are missing; return what went wrong, one line or paragraph each."""
    wanted = [(path, variant) for path in paths for variant in variants(path, kinds, only)]
    missing = [(path, variant) for path, variant in wanted if not result_file(path, variant).is_file()]
    problems = []
    # Two runs of two threads that wait for each other are many times as slow: such runs come alone, after the others.
    rounds = [(jobs, [x for x in missing if x[1].threads == 1]), (1, [x for x in missing if x[1].threads > 1])]
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="run") as bar:
        for workers, part in rounds:
            pool = ThreadPoolExecutor(workers)
            with stoppable(pool):
                made = {pool.submit(run, path, variant): (path, variant) for path, variant in part}
                for future in as_completed(made):
                    bar.set_postfix_str(", ".join([made[future][0].stem, made[future][1].name]))
                    bar.update()
                    try:
                        future.result()
                    except (ElsewhereError, source.SourceError) as error:
                        problems.append(str(error))
    for path, variant in wanted:
        file = result_file(path, variant)
        if not file.is_file():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        if variant.compared and not found["passed"]:
            problems.append(f"{path.stem}, {variant.name}: an output differs or a claim fails\n{found['said']}")
        if variant.offset and not found["passed"]:
            problems.append(f"{path.stem}, {variant.name}: a cell fails\n{found['said']}")
    return problems


def measured(path: Path) -> table.Measured:
    """Collect what has been measured of a notebook, in whichever runs there are."""

    def claims_of(variant: Variant) -> dict[str, float] | None:
        file = result_file(path, variant)
        return json.loads(file.read_text(encoding="utf-8"))["claims"] if file.is_file() else None

    def read(found: list[Variant]) -> dict[str, dict[str, float]]:
        return {variant.name: claims for variant in found if (claims := claims_of(variant)) is not None}

    entry = mutations(path)
    return table.Measured(
        notebook=path.relative_to(ROOT).as_posix(),
        code=source.digest(source.measured_text(path)),
        claims=source.claims(path),
        processors=read(list(PROCESSORS.values())),
        seeds=read([seeds_moved(offset) for offset in OFFSETS]),
        fresh=read([seeds_moved(offset) for offset in FRESH]),
        damaged=read(variants(path, ["mutations"], [])),
        catches={entry["name"]: entry["catches"] for entry in entry["mutation"]},
        fixed=entry["fixed"],
    )


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────────


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ["all", "processors", "seeds", "fresh", "mutations", "report", "check"]
    made.add_argument("what", choices=kinds)
    made.add_argument("notebooks", nargs="*", type=Path, help="which ones; without any, all of them")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (default: one a core)")
    made.add_argument("--only", nargs="+", choices=PROCESSORS, default=[], help="which processors (default: all)")
    made.add_argument("--strict", action="store_true", help="with check: end with exit code 1 where something is found")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 all holds, 1 something does not, 2 wrong input, 130 stopped."""
    chosen = parser().parse_intermixed_args(arguments)
    known = {path.resolve(): path for path in notebooks.notebook_paths()}
    strangers = [path for path in chosen.notebooks if path.resolve() not in known]
    if strangers or chosen.jobs < 1:
        what = f"{strangers[0]} is no notebook of the book" if strangers else f"--jobs {chosen.jobs} runs nothing"
        print(f"elsewhere: {what}", file=sys.stderr)
        return 2
    paths = [known[path.resolve()] for path in chosen.notebooks] or list(known.values())
    if chosen.what == "check":
        found = [line for path in paths for line in table.unmeasured(path)]
        for line in found:
            print(f"elsewhere: {line}", file=sys.stderr)
        if found:
            print("elsewhere: these are no errors; make elsewhere NOTEBOOK=… measures them", file=sys.stderr)
        return 1 if found and chosen.strict else 0
    kinds = {"all": ["processors", "seeds", "fresh", "mutations"], "report": []}.get(chosen.what, [chosen.what])
    try:
        problems = run_all(paths, kinds, chosen.only, chosen.jobs)
        found = [measured(path) for path in paths]
        flags = []
        for each in found:
            print(table.text(each))
            flags += table.flags(each)
        if chosen.what in ("all", "report"):
            print(table.summary(found))
            table.keep([each for each in found if each.is_complete()])
            elsewhere_page.write()
    except source.SourceError as error:
        print(f"elsewhere: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("elsewhere: stopped; what is finished is kept, the same command goes on", file=sys.stderr)
        return 130
    for line in [*problems, *flags]:
        print(f"elsewhere: {line}", file=sys.stderr)
    return 1 if problems or flags else 0


if __name__ == "__main__":
    sys.exit(main())
