"""Studies: the same command many times, with other seeds and settings; what came out is kept for the book.

course_lib/recorded/NAME.json    one entry for each command: the command, its metrics, seconds and machine
"""

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from course_lib import records
from course_lib.errors import InputError

RECORDED = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Study:
    """What a study asks, and the arguments of `python -m course_lib` for each of its runs."""

    question: str
    runs: tuple[str, ...]


STUDIES = {
    "label_budget": Study(
        question="What do the pictures without a label add, at 20 to 1,000 labels? What if a part is taken away?",
        runs=(
            *(
                f"train ssgan --scale quick --labels {labels} --seed {seed}"
                for labels in (20, 50, 100, 1000)
                for seed in range(5)
            ),
            *(
                f"train ssgan --scale quick --labels 50 --ablation {ablation} --seed {seed}"
                for ablation in ("no_unlabelled", "no_feature_matching", "real_fakes", "noise_fakes")
                for seed in range(5)
            ),
        ),
    ),
    "mnist": Study(
        question="What does the semi-supervised GAN reach on MNIST?",
        runs=(
            *(f"train ssgan --scale full --seed {seed}" for seed in range(5)),
            "train ssgan --scale full --no-augmentation --seed 0",
            "train ssgan --scale full --shift-px 2 --seed 0",
            "train ssgan --scale full --labels 100 --seed 0",
        ),
    ),
}


def read(name: str) -> list[dict[str, Any]]:
    """Return what came out of a study, one entry for each run.

    Raises:
        InputError: there is no such study, or the package has no record of it.
    """
    _find(name)
    path = RECORDED / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): install the package again") from error


def run(name: str, out: Path, *, jobs: int = 1) -> Path:
    """Make every run of a study, or go on where it was stopped, and collect the records; return that file.

    Args:
        out: folder for the study, with one folder for each run.
        jobs: how many runs at a time. More than one is good for runs on one thread, those of the quick scale.

    Raises:
        InputError: there is no such study, `jobs` is not positive, or a run failed (with its last words).
    """
    study = _find(name)
    if jobs < 1:
        raise InputError(f"jobs={jobs} runs nothing: use at least 1")
    out.mkdir(parents=True, exist_ok=True)
    # The runs' own progress bars would write over each other.
    quiet = os.environ | {"TQDM_DISABLE": "1"}

    def make(arguments: str) -> dict[str, Any]:
        place = folder(out, arguments)
        started = [sys.executable, "-m", "course_lib", *shlex.split(arguments), "--out", str(place), "--resume"]
        done = subprocess.run(started, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"`{arguments}` ended with exit code {done.returncode}: {last}")
        record = records.read(place / records.FILE_NAME)
        kept = {key: record[key] for key in ("metrics", "seconds", "environment")}
        return {"command": command(arguments), **kept}

    pool = ThreadPoolExecutor(jobs)
    try:
        # In the order of the study, however they end.
        found = list(tqdm(pool.map(make, study.runs), total=len(study.runs), desc=name, unit="run"))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C no further run is begun
    path = out / f"{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def folder(out: Path, arguments: str) -> Path:
    """Return where a study in `out` keeps the run with these arguments."""
    return out / arguments.replace("--", "").replace(" ", "_")


def command(arguments: str) -> str:
    """Return what one types for a run with these arguments."""
    return f"python -m course_lib {arguments}"


def setting(command: str) -> str:
    """Return what a run of a study changes, without its seed: "labels=50,ablation=real_fakes"; "" if nothing."""
    words = shlex.split(command)
    options = [word.strip() for word in " ".join(words[words.index("train") + 2 :]).split("--") if word]
    changes = [option.replace(" ", "=") for option in options if option.split()[0] not in ("scale", "seed")]
    return ",".join(changes)


def _find(name: str) -> Study:
    if name not in STUDIES:
        raise InputError(f"study {name!r} is unknown: use {', '.join(STUDIES)}")
    return STUDIES[name]
