"""Studies: one recipe many times, with other seeds and settings; what came out is kept for the book.

course_lib/recorded/NAME.json    one entry for each run: what was changed, its identity, metrics, seconds and machine
course_lib/recorded/published.toml    numbers of others that the book plots beside ours, with their sources
"""

import os
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter
from tqdm import tqdm
from typing_extensions import TypedDict

from course_lib import files, pretrained, recipes, records
from course_lib.errors import InputError
from course_lib.recipes.settings import flags

RECORDED = Path(__file__).parent / "recorded"
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a study: a recipe at a scale, with a seed, and what it changes of the recipe's settings."""

    recipe: str
    scale: str
    seed: int
    changes: Changes = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        """What stands behind `python -m course_lib`."""
        changed = flags(recipes.find(self.recipe).family.Settings, self.changes)
        return ["train", self.recipe, "--scale", self.scale, *changed, "--seed", str(self.seed)]

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", "course_lib", *self.arguments])

    @property
    def folder(self) -> str:
        """The name of its folder in that of the study."""
        return "_".join(word.removeprefix("--") for word in self.arguments[1:])

    def settings(self) -> Any:
        """Return the settings of the run as the recipe has them today."""
        return recipes.settings(self.recipe, scale=self.scale, **self.changes)


@dataclass(frozen=True)
class Shipped:
    """Networks of one run of a study that come with the package."""

    run: Run
    networks: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """How a metric is shown in a table: its heading, what it is multiplied with, and how many decimals it has."""

    heading: str
    factor: float = 1.0
    decimals: int = 2


@dataclass(frozen=True)
class Study:
    """What a study asks, its runs, the metrics that answer it, and the weights that it gives to the package."""

    question: str
    runs: tuple[Run, ...]
    columns: Mapping[str, Column]
    ships: Mapping[str, Shipped] = field(default_factory=dict)


@records.checked
class Entry(TypedDict):
    """What is kept of a run of a study."""

    changes: dict[str, Any]
    identity: records.Identity
    metrics: dict[str, float]
    seconds: float
    environment: records.Environment


@records.checked
class Recorded(TypedDict):
    """What a study left."""

    study: str
    runs: list[Entry]


@records.checked
class PublishedRow(TypedDict):
    """Test error in per cent at a number of labels, and its standard deviation over choices of the labelled."""

    labels: int
    error: float
    std: float


@records.checked
class Published(TypedDict):
    """What a paper reports of a method, and where it stands."""

    name: str
    source: str
    rows: list[PublishedRow]


SEMI_SUPERVISED = {
    "baseline_test_accuracy": Column("baseline, %", factor=100),
    "test_accuracy": Column("semi-supervised GAN, %", factor=100),
    "gain_points": Column("gain, points"),
}
TOY = {
    "modes_covered": Column("modes covered of 8", decimals=1),
    "good_share": Column("good points, %", factor=100, decimals=0),
    "detective_accuracy": Column("fresh detective, %", factor=100, decimals=0),
}
# A GAN that loses modes: its generator learns more than three times as fast as its discriminator.
BROKEN = {"discriminator_rate": 3e-4}
CRITIC = {"game": "wasserstein", "penalty": "gradient_penalty", "penalty_weight": 1.0}
REMEDIES = {
    "none": {},
    "minimax loss": {"game": "minimax"},
    "least squares": {"game": "least_squares"},
    "hinge": {"game": "hinge"},
    "relativistic": {"game": "relativistic"},
    "labels flipped, 0.35": {"flip_probability": 0.35},
    "real target 0.9": {"real_target": 0.9},
    "instance noise": {"instance_noise_std": 2.0},
    "spectral norm": {"spectral_norm": True},
    "dropout in D": {"discriminator_dropout": 0.2},
    "D four times as wide": {"discriminator_width": 256},
    "R1, weight 1": {"penalty": "r1", "penalty_weight": 1.0},
    "R1, weight 10": {"penalty": "r1", "penalty_weight": 10.0},
    "R3GAN": {"game": "relativistic", "penalty": "r1_r2", "penalty_weight": 1.0},
    "WGAN-GP": CRITIC,
    "WGAN-GP, 5 D steps": {**CRITIC, "discriminator_steps": 5},
    "5 D steps": {"discriminator_steps": 5},
    "unrolled D, 5 steps": {"unrolled_steps": 5, "unrolled_rate": 0.03},
}
DCGAN_ON_MNIST = Run("dcgan", "full", seed=0)
CGAN_ON_MNIST, DENOISER_ON_MNIST, VAE_ON_MNIST, DIFFUSION_ON_MNIST = (
    Run(recipe, "full", seed=0) for recipe in ("cgan", "denoising_autoencoder", "vae", "diffusion")
)
# Two steps on the way to the recipe for MNIST: first slower, at a constant rate, with batch norm and smoothed labels;
# then at the recipe's rate. Both saw the pictures three times.
BATCH_NORM = {
    "epochs": 3,
    "real_target": 0.9,
    "discriminator_width": 64,
    "discriminator_norm": "batch",
    "penalty": None,
    "penalty_weight": 0.0,
    "penalty_steps": 1,
}
EARLIER = {**BATCH_NORM, "generator_rate": 5e-4, "discriminator_rate": 5e-4, "hold": 1.0, "latent_dim": 100}
JUDGE_OF_DIGITS, JUDGE_OF_MNIST = (Run("classifier", scale, seed=0) for scale in ("quick", "full"))
ON_MNIST = tuple(Run("ssgan", "full", seed) for seed in range(5))
STUDIES = {
    "label_budget": Study(
        question="What do the pictures without a label add, at 20 to 1,000 labels? What if a part is taken away?",
        columns=SEMI_SUPERVISED,
        runs=tuple(
            Run("ssgan", "quick", seed, changes)
            for changes in (
                {"labels": 20},
                {"labels": 50},
                {"labels": 100},
                {"labels": 1000},
                {"labels": 50, "ablation": "no_unlabelled"},
                {"labels": 50, "ablation": "no_feature_matching"},
                {"labels": 50, "ablation": "real_fakes"},
                {"labels": 50, "ablation": "noise_fakes"},
            )
            for seed in range(5)
        ),
    ),
    "mnist": Study(
        question="What does the semi-supervised GAN reach on MNIST?",
        columns=SEMI_SUPERVISED,
        runs=(
            *ON_MNIST,
            Run("ssgan", "full", 0, {"augmentation": None}),
            Run("ssgan", "full", 0, {"shift_px": 2.0}),
            Run("ssgan", "full", 0, {"labels": 100}),
        ),
        ships={
            "ssgan_mnist_1000": Shipped(ON_MNIST[0], ("discriminator", "generator")),
            "baseline_mnist_1000": Shipped(ON_MNIST[0], ("baseline",)),
        },
    ),
    "judges": Study(
        question="How often are the classifiers right that generators are judged by?",
        columns={"test_accuracy": Column("accuracy, %", factor=100)},
        runs=(JUDGE_OF_DIGITS, JUDGE_OF_MNIST),
        ships={
            "classifier_digits": Shipped(JUDGE_OF_DIGITS, ("classifier",)),
            "classifier_mnist": Shipped(JUDGE_OF_MNIST, ("classifier",)),
        },
    ),
    "dcgan": Study(
        question="What does a DCGAN reach on MNIST, and what did its recipe gain from each change?",
        columns={"classifier_frechet": Column("classifier Fréchet distance")},
        runs=(
            DCGAN_ON_MNIST,
            *(Run("dcgan", "full", 0, changes) for changes in ({"epochs": 3}, BATCH_NORM, EARLIER)),
        ),
        ships={"dcgan_mnist": Shipped(DCGAN_ON_MNIST, ("generator",))},
    ),
    "cgan": Study(
        question="Does a conditional GAN draw the class that it is asked for?",
        columns={
            "class_accuracy": Column("class asked for, %", factor=100),
            "classifier_frechet": Column("classifier Fréchet distance"),
        },
        runs=(
            CGAN_ON_MNIST,
            *(Run("cgan", "quick", seed) for seed in range(5)),
            *(Run("cgan", "quick", seed, {"conditioning": "embedding"}) for seed in range(5)),
        ),
        ships={"cgan_mnist": Shipped(CGAN_ON_MNIST, ("generator",))},
    ),
    "captions": Study(
        question="Does it draw what a caption asks for, also for captions that the training has not?",
        columns={
            "caption_accuracy": Column("captions obeyed, %", factor=100),
            "withheld_caption_accuracy": Column("unseen captions, %", factor=100),
            "real_caption_accuracy": Column("real pictures, %", factor=100),
        },
        runs=tuple(Run("text_to_image", "quick", seed) for seed in range(5)),
    ),
    "autoencoder": Study(
        question="How well does an autoencoder rebuild MNIST's digits from 32 numbers, and clean them of noise?",
        columns={"test_mse": Column("mean squared error", decimals=4), "test_psnr_db": Column("PSNR, dB")},
        runs=(Run("autoencoder", "full", seed=0), DENOISER_ON_MNIST),
        ships={"denoiser_mnist": Shipped(DENOISER_ON_MNIST, ("autoencoder",))},
    ),
    "vae": Study(
        question="What bound on the likelihood of MNIST's digits does a variational autoencoder reach?",
        columns={
            "test_negative_elbo_nats": Column("negative ELBO, nats"),
            "classifier_frechet": Column("classifier Fréchet distance"),
        },
        runs=(VAE_ON_MNIST,),
        ships={"vae_mnist": Shipped(VAE_ON_MNIST, ("vae",))},
    ),
    "diffusion": Study(
        question="How good are the digits of a diffusion model?",
        columns={"classifier_frechet": Column("classifier Fréchet distance")},
        runs=(DIFFUSION_ON_MNIST,),
        ships={"diffusion_mnist": Shipped(DIFFUSION_ON_MNIST, ("denoiser",))},
    ),
    "remedies": Study(
        question="A GAN on eight Gaussians loses modes because its generator learns too fast. Which remedies help?",
        columns=TOY,
        runs=tuple(
            Run("toy_gan", "quick", seed, changes)
            for changes in (
                {},
                *({**BROKEN, **remedy} for remedy in REMEDIES.values()),
            )
            for seed in range(5)
        ),
    ),
}


def read(name: str) -> list[Entry]:
    """Return what came out of a study, one entry for each run.

    Raises:
        InputError: there is no such study, or the package's record of it is missing or damaged.
    """
    find(name)
    return records.read_as(Recorded, RECORDED / f"{name}.json")["runs"]


def values(name: str, metric: str, **changes: Any) -> Float[np.ndarray, " runs"]:
    """Return a recorded metric of all runs of a study that make exactly these changes, in the order of their seeds.

    Raises:
        InputError: as for `read`, or no run makes these changes, or those that do have no such metric.
    """
    found = [entry["metrics"] for entry in read(name) if entry["changes"] == changes]
    if not found:
        raise InputError(f"no run of the study {name} changes {changes or 'nothing'}: see course_lib/studies.py")
    if metric not in found[0]:
        raise InputError(f"the study {name} has no metric {metric!r}: use {', '.join(found[0])}")
    return np.array([metrics[metric] for metrics in found])


def published(data: str) -> list[Published]:
    """Return what others have published on some data, and the book plots beside ours."""
    path = RECORDED / "published.toml"
    with path.open("rb") as file:
        return TypeAdapter(dict[str, list[Published]]).validate_python(tomllib.load(file))[data]


def find(name: str) -> Study:
    """Look a study up.

    Raises:
        InputError: there is none of this name.
    """
    if name not in STUDIES:
        raise InputError(f"study {name!r} is unknown: use {', '.join(STUDIES)}")
    return STUDIES[name]


def run(name: str, out: Path, *, jobs: int = 1) -> Path:
    """Make every run of a study, or go on where it was stopped, and collect the records; return that file.

    Args:
        out: folder for the study, with one folder for each run.
        jobs: how many runs at a time. More than one is good for runs on one thread, those of the quick scale.

    Raises:
        InputError: there is no such study, `jobs` cannot be, the folder cannot be written, or a run failed (with its
            last words).
        KeyboardInterrupt: somebody asked it to stop. Runs under way have saved their state.
    """
    study = find(name)
    if not 1 <= jobs <= 64:
        raise InputError(f"jobs={jobs} cannot be: use 1 to 64")
    if out.exists() and not out.is_dir():
        raise InputError(f"the output folder {out} is a file: name a folder that is empty or does not exist")
    out.mkdir(parents=True, exist_ok=True)
    children = _Children()

    def make(one: Run) -> Entry:
        children.run([*one.arguments, "--out", str(out / one.folder), "--resume"], what=one.command)
        record = records.read(out / one.folder / records.FILE_NAME)
        kept = {key: record[key] for key in ("identity", "metrics", "seconds", "environment")}
        return {"changes": dict(one.changes), **kept}

    pool = ThreadPoolExecutor(jobs)
    try:
        # In the order of the study, however they end.
        found = list(tqdm(pool.map(make, study.runs), total=len(study.runs), desc=name, unit="run"))
    except BaseException:
        children.stop()
        raise
    finally:
        _wait(pool, children)
    path = out / f"{name}.json"
    files.write_sealed(path, {"study": name, "runs": found})
    return path


def keep(name: str, out: Path) -> None:
    """Take what a study left in `out` into the package: its records, and the weights that it ships.

    Raises:
        InputError: the study is not finished there, or its weights do not repeat their records.
    """
    study, path = find(name), out / f"{name}.json"
    records.read_as(Recorded, path)
    for weights, shipped in study.ships.items():
        pretrained.ship(out / shipped.run.folder, weights, networks=shipped.networks)
    files.write(RECORDED / path.name, path.read_bytes())


class _Children:
    """The processes of a study. They are asked to stop by it alone, so Ctrl-C in a terminal reaches them only once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, arguments: list[str], *, what: str) -> None:
        """Run one command to its end.

        Raises:
            InputError: it failed, or was asked to stop.
        """
        command = [sys.executable, "-m", "course_lib", *arguments]
        quiet = os.environ | {"TQDM_DISABLE": "1"}  # progress bars would write over each other
        with self._lock:
            if self._stopped:
                raise InputError("the study was stopped")
            child = subprocess.Popen(
                command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            self._running.add(child)
        _, said = child.communicate()
        with self._lock:
            self._running.discard(child)
        if child.returncode:
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"`{what}` ended with exit code {child.returncode}: {last}")

    def stop(self, *, at_once: bool = False) -> None:
        """Ask all that run to save their state and end; at once: end them."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.kill() if at_once else child.terminate()


def _wait(pool: ThreadPoolExecutor, children: _Children) -> None:
    try:
        pool.shutdown(cancel_futures=True)  # after an error or a stop no further run is begun
    except KeyboardInterrupt:  # asked a second time
        children.stop(at_once=True)
        pool.shutdown()
        raise
