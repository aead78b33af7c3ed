"""Named recipes: what to train, with which settings, at two scales.

quick  scikit-learn's digits, at most a minute or two on two CPU cores, no download
full   MNIST, minutes on a GPU

Points in the plane take seconds and are drawn, not loaded: their recipe is the same at both scales.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from course_lib import records, runtime
from course_lib.data.augment import RandomAffine
from course_lib.errors import InputError
from course_lib.recipes import (
    autoencoder,
    classifier,
    conditional_gan,
    dcgan,
    diffusion,
    image_to_image,
    semi_supervised,
    toy_gan,
    vae,
)
from course_lib.recipes.run_folder import check_free, open_run_folder
from course_lib.recipes.settings import change
from course_lib.recipes.shared import Family, Outcome, Prepared, judged_by

logger = logging.getLogger(__name__)
LARGEST_SEED = 2**32 - 1  # NumPy takes no larger one


@dataclass(frozen=True)
class Recipe:
    """What a recipe is for, the family that trains it, and its settings at both scales."""

    summary: str
    family: Family
    quick: Any
    full: Any


TOY_GAN = toy_gan.Settings(
    data="ring",
    data_std=0.1,
    steps=2000,
    batch=128,
    generator_rate=1e-3,
    discriminator_rate=1e-3,
    checkpoint_steps=1000,
    sample_steps=500,
)
# What recipes of one network have in common. Float32, so that the outputs stored in the notebooks hold everywhere.
QUICK = {"checkpoint_steps": 200, "sample_steps": 200, "precision": "float32", "threads": 1}
FULL = {"checkpoint_steps": 1000, "sample_steps": 1000, "precision": "auto", "threads": None}
RECIPES = {
    "ssgan": Recipe(
        summary="a semi-supervised GAN and its supervised baseline: a classifier from few labels",
        family=semi_supervised,
        quick=semi_supervised.Settings(
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
            sample_steps=100,
            precision="float32",  # so that the outputs stored in the notebooks hold everywhere
            threads=1,
            unlabelled_batch=50,
        ),
        full=semi_supervised.Settings(
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
            sample_steps=1000,
            precision="auto",
            threads=None,
        ),
    ),
    "classifier": Recipe(
        summary="a small classifier that has every label: the judge of the generators",
        family=classifier,
        quick=classifier.Settings(
            data="digits",
            epochs=40,
            augmentation=RandomAffine(shift_px=1.0, rotation_degrees=10.0, stretch=0.1),
            checkpoint_steps=500,
        ),
        full=classifier.Settings(
            data="mnist",
            epochs=20,
            augmentation=RandomAffine(shift_px=2.0, rotation_degrees=10.0, stretch=0.1, slant=0.1),
            checkpoint_steps=1000,
        ),
    ),
    "dcgan": Recipe(
        summary="a convolutional GAN on digits, or on a folder of your own pictures",
        family=dcgan,
        quick=dcgan.Settings(
            data="digits",
            epochs=60,
            batch=64,
            generator_rate=1e-3,
            discriminator_rate=1e-3,
            average=0.99,
            hold=0.5,
            real_target=0.9,
            generator_width=32,
            discriminator_width=32,
            checkpoint_steps=200,
            sample_steps=100,
            precision="float32",  # so that the outputs stored in the notebooks hold everywhere
            threads=1,
        ),
        full=dcgan.Settings(
            data="mnist",
            epochs=10,
            batch=64,
            generator_rate=2e-3,
            discriminator_rate=2e-3,
            average=0.998,
            hold=0.2,
            latent_dim=64,
            discriminator_width=96,
            discriminator_norm="none",
            penalty="r1",
            penalty_weight=1.0,
            penalty_steps=4,
            checkpoint_steps=1000,
            sample_steps=1000,
            precision="auto",
            threads=None,
        ),
    ),
    "dcgan_flowers": Recipe(
        summary="the same on flowers in colour, as MathWorks' example has it",
        family=dcgan,
        quick=dcgan.Settings(
            data="petals",
            side_px=16,
            epochs=30,
            batch=64,
            kernel=5,
            generator_rate=1e-3,
            discriminator_rate=1e-3,
            average=0.99,
            mirror=True,
            real_target=0.9,
            generator_width=16,
            discriminator_width=16,
            checkpoint_steps=200,
            sample_steps=100,
            precision="float32",
            threads=1,
        ),
        full=dcgan.Settings(
            data="flowers",
            side_px=64,
            epochs=500,
            batch=128,
            kernel=5,
            generator_rate=2e-4,
            discriminator_rate=2e-4,
            average=0.0,
            mirror=True,
            flip_probability=0.35,
            discriminator_dropout=0.5,
            checkpoint_steps=280,
            sample_steps=100,
            precision="auto",
            threads=None,
        ),
    ),
    "cgan": Recipe(
        summary="a GAN that draws the class that you ask for",
        family=conditional_gan,
        quick=conditional_gan.Settings(
            data="digits",
            epochs=60,
            batch=64,
            generator_rate=1e-3,
            discriminator_rate=1e-3,
            average=0.99,
            hold=0.5,
            real_target=0.9,
            generator_width=32,
            discriminator_width=32,
            checkpoint_steps=200,
            sample_steps=100,
            precision="float32",  # so that the outputs stored in the notebooks hold everywhere
            threads=1,
        ),
        full=conditional_gan.Settings(
            data="mnist",
            epochs=10,
            batch=64,
            generator_rate=2e-3,
            discriminator_rate=2e-3,
            average=0.998,
            hold=0.2,
            latent_dim=48,
            generator_width=32,
            discriminator_width=96,
            discriminator_norm="none",
            penalty="r1",
            penalty_weight=1.0,
            penalty_steps=4,
            checkpoint_steps=1000,
            sample_steps=1000,
            precision="auto",
            threads=None,
        ),
    ),
    "text_to_image": Recipe(
        summary='the same for captions such as "bold slanted seven", a few of them never seen in training',
        family=conditional_gan,
        quick=conditional_gan.Settings(
            data="digits",
            captions=True,
            withheld="bold seven, slanted two, bold slanted four",
            epochs=20,
            batch=64,
            generator_rate=1e-3,
            discriminator_rate=1e-3,
            average=0.99,
            hold=0.5,
            real_target=0.9,
            generator_width=32,
            discriminator_width=32,
            checkpoint_steps=400,
            sample_steps=200,
            precision="float32",
            threads=1,
        ),
        full=conditional_gan.Settings(
            data="mnist",
            captions=True,
            withheld="bold seven, slanted two, bold slanted four",
            epochs=3,
            batch=64,
            generator_rate=2e-3,
            discriminator_rate=2e-3,
            average=0.998,
            hold=0.2,
            latent_dim=48,
            generator_width=32,
            discriminator_width=96,
            discriminator_norm="none",
            penalty="r1",
            penalty_weight=1.0,
            penalty_steps=4,
            checkpoint_steps=1000,
            sample_steps=1000,
            precision="auto",
            threads=None,
        ),
    ),
    "image_to_image": Recipe(
        summary="a GAN that completes, sharpens or continues a picture, beside a regression with the same network",
        family=image_to_image,
        quick=image_to_image.Settings(
            data="digits",
            epochs=60,
            batch=64,
            generator_rate=1e-3,
            discriminator_rate=3e-4,
            average=0.99,
            hold=0.5,
            real_target=0.9,
            checkpoint_steps=400,
            sample_steps=200,
            precision="float32",  # so that the outputs stored in the notebooks hold everywhere
            threads=1,
        ),
        full=image_to_image.Settings(
            data="mnist",
            epochs=5,
            batch=64,
            generator_rate=1e-3,
            discriminator_rate=3e-4,
            average=0.998,
            hold=0.2,
            real_target=0.9,
            checkpoint_steps=1000,
            sample_steps=1000,
            precision="auto",
            threads=None,
        ),
    ),
    "autoencoder": Recipe(
        summary="a convolutional autoencoder: pictures squeezed through a few numbers",
        family=autoencoder,
        quick=autoencoder.Settings(data="digits", epochs=40, batch=64, latent_dim=8, **QUICK),
        full=autoencoder.Settings(data="mnist", epochs=6, **FULL),
    ),
    "denoising_autoencoder": Recipe(
        summary="the same, taught to clean pictures of noise",
        family=autoencoder,
        quick=autoencoder.Settings(data="digits", epochs=60, batch=64, noise_factor=0.5, **QUICK),
        full=autoencoder.Settings(data="mnist", epochs=8, noise_factor=0.5, width=8, **FULL),
    ),
    "vae": Recipe(
        summary="a variational autoencoder: a decoder that draws from noise, and a bound on the likelihood",
        family=vae,
        quick=vae.Settings(data="digits", epochs=60, latent_dim=8, **QUICK),
        full=vae.Settings(data="mnist", epochs=8, latent_dim=16, **FULL),
    ),
    "diffusion": Recipe(
        summary="a denoising diffusion model: draws by removing noise, a little at a time",
        family=diffusion,
        quick=diffusion.Settings(data="digits", epochs=100, **QUICK),
        full=diffusion.Settings(data="mnist", epochs=16, average=0.998, **FULL),
    ),
    "toy_gan": Recipe(
        summary="a GAN on points in the plane, with every loss and remedy of chapter 3 as an option",
        family=toy_gan,
        quick=TOY_GAN,
        full=TOY_GAN,  # seconds on any machine: there is nothing to make larger
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


def settings(name: str, *, scale: str = "auto", **changes: Any) -> Any:
    """Return the settings of a recipe at a scale ("auto": full where a CUDA GPU is present), with some of them changed.

    Args:
        changes: fields of the settings, or of a part of them, and their new values. None leaves a part out:
            labels=100, shift_px=2, augmentation=None.

    Raises:
        InputError: there is no such recipe, scale or field, or a value cannot be.
    """
    return change(getattr(find(name), runtime.resolve_scale(scale)), changes)


def check_seed(seed: int) -> None:
    """Refuse what cannot be a seed of every library that the course uses.

    Raises:
        InputError: it is negative or too large.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed={seed} is no seed: use a whole number from 0 to {LARGEST_SEED}")


def run(
    name: str,
    *,
    scale: str,
    seed: int,
    out: Path | None = None,
    resume: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> records.Record:
    """Train a recipe from start to end and return its record.

    Args:
        scale: quick, full or auto.
        seed: decides the first weights, the labelled few, the order of the pictures and all noise; 0 to 2^32 - 1.
        out: folder for `record.json`, weights, pictures and checkpoints; None saves nothing.
        resume: go on from the newest intact checkpoint in `out`, or repeat the record of a finished run.
        changes: as for `settings`.

    Raises:
        InputError: something given cannot be used; nothing has been written.
    """
    started = time.perf_counter()
    recipe, scale = find(name), runtime.resolve_scale(scale)
    chosen = settings(name, scale=scale, **changes or {})
    check_seed(seed)
    if out is not None:
        check_free(out, resume=resume)
    elif resume:
        raise InputError("resume needs the folder of the run that it goes on with: name it with --out")
    prepared = recipe.family.prepare(chosen, seed=seed)
    identity = records.Identity(
        recipe=name, scale=scale, seed=seed, settings=asdict(chosen), data_sha256=prepared.data.sha256()
    )
    if out is None:
        logger.warning("nothing will be saved: name an output folder to keep the result")
        return _record(identity, prepared, recipe.family.train(chosen, prepared, seed=seed), started)
    with open_run_folder(out, identity=identity, resume=resume) as folder:
        finished = folder.finished_record()
        if finished:
            last = sum(int(history[-1]["step"]) for history in finished["history"].values())
            return finished | {"resumed_from_step": last}
        outcome = recipe.family.train(chosen, prepared, seed=seed, folder=folder)
        record = _record(identity, prepared, outcome, started) | {"earlier_versions": folder.earlier_versions}
        if runtime.is_main_process():
            record["sha256"] = folder.save_weights(outcome.networks)
            records.write(record, out)
        return record


def _record(identity: records.Identity, prepared: Prepared, outcome: Outcome, started: float) -> records.Record:
    fitted = outcome.fitted.values()
    seconds = time.perf_counter() - started + sum(one.earlier_seconds for one in fitted)
    return {
        "identity": identity,
        "images": prepared.data.form._asdict(),
        "metrics": outcome.metrics,
        "history": {name: one.history for name, one in outcome.fitted.items()},
        "resumed_from_step": sum(one.resumed_from_step for one in fitted),
        "seconds": round(seconds, 2),
        "environment": records.versions() | runtime.describe(),
        "earlier_versions": [],
        **({"judged_by": found} if (found := judged_by(prepared)) else {}),
        "sha256": {},
    }
