"""Named recipes: what to train, with which settings, at two scales.

quick  scikit-learn's digits, at most a minute or two on two CPU cores, no download
full   MNIST, minutes on a GPU
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from course_lib import records, runtime
from course_lib.data.augment import RandomAffine
from course_lib.errors import InputError
from course_lib.recipes import semi_supervised
from course_lib.recipes.run_folder import check_free, open_run_folder
from course_lib.recipes.semi_supervised import SemiSupervised

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What a recipe is for, its settings at both scales, and its functions.

    Args:
        prepare: loads the data for settings and a seed.
        train: trains and returns the fields of the record.
        build: returns the untrained networks by name, for the identity of a record and the form of its images.
        measure: returns metrics of trained networks on data, by the names that they have in the record.
    """

    summary: str
    quick: SemiSupervised
    full: SemiSupervised
    prepare: Callable[..., tuple]
    train: Callable[..., dict[str, Any]]
    build: Callable[..., dict[str, nn.Module]]
    measure: Callable[..., dict[str, float]]


RECIPES = {
    "ssgan": Recipe(
        summary="a semi-supervised GAN and its supervised baseline: a classifier from few labels",
        prepare=semi_supervised.prepare_data,
        train=semi_supervised.train_both,
        build=semi_supervised.build,
        measure=semi_supervised.measure,
        quick=SemiSupervised(
            data="digits",
            labels=50,
            epochs=30,
            learning_rate=2e-3,
            noise_std=0.15,
            dropout=0.2,
            augmentation=RandomAffine(shift_px=1.0, rotation_degrees=10.0, stretch=0.1),
            augment_unlabelled=False,
            average=0.99,
            checkpoint_steps=100,
            unlabelled_batch=50,
        ),
        full=SemiSupervised(
            data="mnist",
            labels=1000,
            epochs=15,
            learning_rate=2e-3,
            beta2=0.99,
            noise_std=0.15,
            dropout=0.1,
            augmentation=RandomAffine(shift_px=1.0, whole_pixels=True),
            augment_unlabelled=True,
            average=0.998,
            checkpoint_steps=1000,
        ),
    ),
}


def find(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        InputError: there is none of this name.
    """
    if name not in RECIPES:
        raise InputError(f"recipe {name!r} is unknown: use {', '.join(RECIPES)}")
    return RECIPES[name]


def settings(
    name: str, *, scale: str = "auto", augmentation: bool = True, shift_px: float | None = None, **changes: Any
) -> SemiSupervised:
    """Return the settings of a recipe at a scale ("auto": full where a GPU is present), with some of them changed.

    Args:
        augmentation: false leaves the pictures as they are.
        shift_px: limit of the random shifts instead of the recipe's; the rest of the augmentation stays.
        changes: fields of the settings and their new values; None changes nothing.
    """
    chosen = getattr(find(name), runtime.resolve_scale(scale))
    changes = {key: value for key, value in changes.items() if value is not None}
    if not augmentation:
        changes["augmentation"] = None
    elif shift_px is not None:
        changes["augmentation"] = replace(chosen.augmentation, shift_px=float(shift_px))
    return replace(chosen, **changes)


def run(
    name: str, *, scale: str, seed: int, out: Path | None = None, resume: bool = False, **changes: Any
) -> dict[str, Any]:
    """Train a recipe from start to end and return its record.

    Args:
        scale: quick, full or auto.
        seed: decides the first weights, the labelled few, the order of the pictures and all noise.
        out: folder for `record.json`, weights, a curve and checkpoints; None saves nothing.
        resume: go on from the newest intact checkpoint in `out`, or repeat the record of a finished run.
        changes: as for `settings`.

    Raises:
        InputError: something given cannot be used; nothing has been written.
    """
    started = time.perf_counter()
    recipe, scale = find(name), runtime.resolve_scale(scale)
    chosen = settings(name, scale=scale, **changes)
    if out is not None:
        check_free(out, resume=resume)
    elif resume:
        raise InputError("resume needs the folder of the run that it goes on with: name it with --out")
    data, *rest = recipe.prepare(chosen, seed=seed)
    identity = {"recipe": name, "scale": scale, "seed": seed, **asdict(chosen), "data_sha256": data.sha256()}
    accelerator = runtime.start(seed, scale=scale)

    def record_of(outcome: dict[str, Any]) -> dict[str, Any]:
        place = records.environment() | runtime.describe(accelerator)
        seconds = time.perf_counter() - started + outcome.pop("earlier_seconds")
        return {
            "identity": identity,
            "images": {"channels": data.channels, "side_px": data.side_px, "classes": data.classes},
            **outcome,
            "seconds": round(seconds, 2),
            "environment": place,
        }

    if out is None:
        logger.warning("nothing will be saved: name an output folder to keep the result")
        return record_of(recipe.train(chosen, data, *rest, scale=scale, seed=seed))
    with open_run_folder(out, identity=identity, resume=resume) as folder:
        finished = folder.finished_record()
        if finished:
            last = sum(history[-1]["step"] for history in finished["history"].values())
            return finished | {"resumed_from_step": last}
        record = record_of(recipe.train(chosen, data, *rest, scale=scale, seed=seed, folder=folder))
        if runtime.is_main_process():
            records.write(record, out)
        return record
