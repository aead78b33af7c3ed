"""Recipes that train one network without labels: what their settings have in common reaches what it is for."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from course_lib import pretrained, recipes, records, runtime
from course_lib.data import images
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.frechet import frechet_distance
from course_lib.evaluation.judge import judge
from course_lib.recipes import autoencoder, diffusion, shared, vae
from course_lib.training.fit import hold_then_fall

FAMILIES = {
    "autoencoder": (autoencoder, "autoencoder_step", "autoencoder"),
    "denoising_autoencoder": (autoencoder, "autoencoder_step", "autoencoder"),
    "vae": (vae, "vae_step", "vae"),
    "diffusion": (diffusion, "diffusion_step", "denoiser"),
}
# Each unlike what a recipe has, at either scale. What only one family has is tested with that family.
UNUSUAL = {
    "data": "dim",
    "epochs": 3,
    "batch": 13,
    "checkpoint_steps": 5,
    "sample_steps": 4,
    "precision": "bfloat16",
    "threads": 2,
    "validation": 10,
    "width": 3,
    "learning_rate": 3e-3,
    "beta1": 0.4,
    "beta2": 0.95,
    "hold": 0.4,
    "average": 0.6,
}
OWN = {
    "autoencoder": {"noise_factor", "latent_dim", "held_out"},
    "denoising_autoencoder": {"noise_factor", "latent_dim", "held_out"},
    "vae": {"beta", "latent_dim"},
    "diffusion": {"noise_steps", "evaluations"},
}
PICTURES, STEPS = 60, 3 * (50 // 13)


def dim() -> images.ImageData:
    """Few and dark pictures that can be told from all others."""
    digits = images.digits()
    return dataclasses.replace(
        digits,
        name="dim",
        train_images=digits.train_images[:PICTURES] // 4,
        train_labels=digits.train_labels[:PICTURES],
        test_images=digits.test_images[:20] // 4,
        test_labels=digits.test_labels[:20],
    )


@dataclasses.dataclass
class Seen:
    """A finished run, the pictures that its steps were given, and each update: rate, betas, new weights."""

    recipe: str
    out: Path
    record: records.Record
    given: list[Tensor]
    updates: list[tuple[float, tuple[float, float], Tensor]]
    kept: nn.Module
    kinds: set[torch.dtype]

    @property
    def training(self) -> str:
        return "autoencoder" if "autoencoder" in self.recipe else self.recipe

    def rows(self) -> set[bytes]:
        return {picture.contiguous().numpy().tobytes() for batch in self.given for picture in batch}


def observe(recipe: str, out: Path, seed: int = 3, **changes: Any) -> Seen:
    """Make a run with such settings and watch it."""
    family, name, network_name = FAMILIES[recipe]
    given, updates, kinds = [], [], set()

    def note_given(watched: str, place: int) -> Callable[..., Any]:
        function = getattr(family, watched)

        def watch(*arguments: Any, **how: Any) -> Any:
            if "generator" not in how:  # that of a measurement
                given.append(arguments[place].clone())
            return function(*arguments, **how)

        return watch

    def note_update(optimizer: Optimizer, *_: Any) -> None:
        (group,) = optimizer.param_groups
        weights = torch.cat([weight.detach().flatten() for weight in group["params"]])
        updates.append((group["lr"], group["betas"], weights))

    def note_kind(layer: nn.Module, _: Any, returned: Any) -> None:
        if isinstance(layer, nn.Conv2d) and layer.training:
            kinds.add(returned.dtype)

    hooks = [register_optimizer_step_post_hook(note_update), register_module_forward_hook(note_kind)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.SOURCES, "dim", dim)
        # The pictures that a step shall learn from; a VAE's are made black and white first.
        watched, place = ("binarised", 0) if family is vae else (name, 3 if family is autoencoder else 2)
        patch.setattr(family, watched, note_given(watched, place))
        try:
            record = recipes.run(recipe, scale="quick", seed=seed, out=out, changes=changes)
        finally:
            for hook in hooks:
                hook.remove()
    kept = pretrained.load(out).networks[network_name]
    return Seen(recipe, out, record, given, updates, kept, kinds)


@pytest.fixture(scope="module", params=["autoencoder", "vae", "diffusion"])
def seen(request, tmp_path_factory):
    few = {"evaluations": 2} if request.param == "diffusion" else {}  # to draw takes longer than to train
    return observe(request.param, tmp_path_factory.mktemp("seen") / "out", **UNUSUAL, **few)


def data_of(seen: Seen) -> set[str]:
    return {"dim" if max(batch.max().item() for batch in seen.given) < -0.4 else "another"}


def hold_of(seen: Seen) -> set[float]:
    rates = [rate for rate, *_ in seen.updates]
    return {
        hold
        for hold in np.arange(0, 1.01, 0.1).round(1).tolist()
        if np.allclose(rates, [3e-3 * hold_then_fall(hold)(step / STEPS) for step in range(STEPS)])
    }


def average_of(seen: Seen) -> set[float]:
    """Return the decays with which the kept weights are an average of those after each update."""
    kept = torch.cat([weight.detach().flatten() for weight in seen.kept.parameters()])
    found = set()
    for decay in (0.0, 0.3, 0.6, 0.9):
        average = seen.updates[0][-1]
        for *_, weights in seen.updates[1:]:
            average = decay * average + (1 - decay) * weights
        found |= {decay} if torch.allclose(average, kept, atol=1e-5) else set()
    return found


def numbers_of(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.iterdir())


# How a run shows the value of a setting: all values that can be read back from it.
SHOWN = {
    "data": data_of,
    "epochs": lambda seen: {len(seen.given) * 3 / STEPS},
    "batch": lambda seen: {len(batch) for batch in seen.given},
    "checkpoint_steps": lambda seen: {numbers_of(seen.out / "checkpoints" / seen.training)[0]},
    "sample_steps": lambda seen: {np.diff(numbers_of(seen.out / "samples"))[0].item()},
    "precision": lambda seen: {str(kind).removeprefix("torch.") for kind in seen.kinds},
    "threads": lambda seen: {seen.record["environment"]["threads"]},
    "validation": lambda seen: {PICTURES - len(seen.rows())},
    "width": lambda seen: {next(layer for layer in seen.kept.modules() if isinstance(layer, nn.Conv2d)).out_channels},
    "learning_rate": lambda seen: {max(rate for rate, *_ in seen.updates)},
    "beta1": lambda seen: {betas[0] for _, betas, _ in seen.updates},
    "beta2": lambda seen: {betas[1] for _, betas, _ in seen.updates},
    "hold": hold_of,
    "average": average_of,
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_setting_reaches_the_object_it_is_for(seen, name):
    assert SHOWN[name](seen) == {UNUSUAL[name]}


@pytest.mark.parametrize("recipe", FAMILIES)
def test_every_setting_is_watched(recipe):
    """A new one needs a line in SHOWN, or a test in the file of its family and a line in OWN."""
    assert SHOWN.keys() == UNUSUAL.keys()
    names = {field.name for field in dataclasses.fields(FAMILIES[recipe][0].Settings)}
    assert SHOWN.keys() | OWN[recipe] == names
    for name, value in UNUSUAL.items():
        assert all(getattr(recipes.settings(recipe, scale=scale), name) != value for scale in ("quick", "full"))


def test_every_picture_is_seen_once_an_epoch_and_none_that_is_set_aside(seen):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.SOURCES, "dim", dim)
        data = images.load("dim", validation=10)
    known = {picture.numpy().tobytes() for picture in to_unit_range(data.train_images)}
    assert seen.rows() == known and len(known) == 50
    assert len({row.contiguous().numpy().tobytes() for batch in seen.given[:3] for row in batch}) == 3 * 13


def test_what_is_measured_on_validation_pictures_is_called_so(seen):
    keys = set(seen.record["metrics"])
    assert keys and all(key.startswith("validation_") for key in keys)


def test_metrics_on_the_way_are_those_of_the_network_that_is_kept(seen):
    last = seen.record["history"][seen.training][-1]
    assert {key: last[key] for key in seen.record["metrics"]} == seen.record["metrics"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.SOURCES, "dim", dim)
        assert pretrained.evaluate(seen.out) == pytest.approx(seen.record["metrics"], rel=1e-4)


SHORT = {"data": "dim", "epochs": 4, "batch": 20, "width": 2, "checkpoint_steps": 7, "sample_steps": 100}


@pytest.mark.parametrize("recipe", FAMILIES)
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(recipe, tmp_path, monkeypatch):
    family, name, _ = FAMILIES[recipe]
    whole = observe(recipe, tmp_path / "whole", **SHORT).record
    step, calls = getattr(family, name), iter(range(100))
    monkeypatch.setitem(images.SOURCES, "dim", dim)
    with monkeypatch.context() as patch:
        patch.setattr(family, name, lambda *a, **how: step(*a, **how) if next(calls) < 9 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recipes.run(recipe, scale="quick", seed=3, out=tmp_path / "cut", changes=SHORT)
    resumed = recipes.run(recipe, scale="quick", seed=3, out=tmp_path / "cut", changes=SHORT, resume=True)
    assert resumed["resumed_from_step"] == 7 and resumed["sha256"] == whole["sha256"]
    assert resumed["history"] == whole["history"] and resumed["metrics"] == whole["metrics"]


@pytest.mark.parametrize("recipe", FAMILIES)
def test_another_seed_chooses_other_weights_and_another_order(recipe, tmp_path):
    changes = SHORT | {"epochs": 1}
    one, other = (observe(recipe, tmp_path / str(seed), seed=seed, **changes) for seed in (3, 4))
    assert not torch.equal(one.given[0], other.given[0]) and not torch.equal(one.updates[0][-1], other.updates[0][-1])


@pytest.mark.parametrize("recipe", FAMILIES)
def test_no_test_picture_and_no_label_changes_what_is_learnt(recipe, tmp_path, monkeypatch):
    before = observe(recipe, tmp_path / "before", **SHORT).record
    data = dim()
    blank = dataclasses.replace(
        data, test_images=torch.zeros_like(data.test_images), train_labels=torch.zeros_like(data.train_labels)
    )
    monkeypatch.setitem(images.SOURCES, "blank", lambda: blank)
    after = recipes.run(recipe, scale="quick", seed=3, out=tmp_path / "after", changes=SHORT | {"data": "blank"})
    assert after["sha256"] == before["sha256"] and after["metrics"] != before["metrics"]


@pytest.mark.parametrize("recipe", FAMILIES)
def test_a_batch_that_the_processes_cannot_share_is_refused(recipe, monkeypatch):
    monkeypatch.setattr(runtime, "processes", lambda: 3)
    with pytest.raises(InputError, match="batch=128 cannot be shared by 3 processes"):
        FAMILIES[recipe][0].prepare(recipes.settings(recipe, scale="quick", batch=128), seed=0)


@pytest.mark.parametrize("recipe", FAMILIES)
def test_show_gets_the_pictures_in_place_of_the_folder(recipe, monkeypatch):
    monkeypatch.setitem(images.SOURCES, "dim", dim)
    family, shown = FAMILIES[recipe][0], []
    settings = recipes.settings(recipe, scale="quick", **SHORT | {"sample_steps": 5})
    prepared = family.prepare(settings, seed=0)
    family.train(settings, prepared, seed=0, show=lambda step, pictures: shown.append((step, pictures)))
    assert [step for step, _ in shown] == [0, 5, 10, 12]
    assert all(pictures.shape[1:] == (1, 8, 8) and pictures.abs().max() <= 1 for _, pictures in shown)


def test_the_judge_scores_pictures_and_its_hash_is_kept():
    data = images.digits()
    judged = shared.judged(data)
    assert judged.judged_by == {"classifier_digits": judge("digits").sha256}
    half = to_unit_range(data.test_images[:250])
    found = judged.scores(half)
    real = judge("digits").features(to_unit_range(data.test_images))
    assert found["classifier_frechet"] == pytest.approx(frechet_distance(real, judge("digits").features(half)))
    assert found["class_entropy_nats"] == pytest.approx(np.log(10), abs=0.05)
    zeros = to_unit_range(data.test_images[data.test_labels == 0]).repeat(3, 1, 1, 1)
    assert judged.scores(zeros)["class_entropy_nats"] < 0.2
    assert judged.scores(None) == {} == shared.judged(dim()).scores(half)
