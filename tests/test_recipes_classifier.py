import dataclasses
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from course_lib import pretrained, recipes, records, runtime
from course_lib.data import images
from course_lib.data.augment import RandomAffine
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.models.blocks import Dropout, GaussianNoise
from course_lib.models.classifier import Classifier
from course_lib.recipes import classifier

# Each unlike what the recipe has, at either scale.
UNUSUAL = {
    "data": "mirrored",
    "epochs": 2,
    "augmentation": None,
    "checkpoint_steps": 3,
    "batch": 26,
    "learning_rate": 2e-3,
    "beta1": 0.4,
    "beta2": 0.95,
    "hold": 0.5,
    "average": 0.7,
    "noise_std": 0.07,
    "dropout": 0.3,
    "width": 5,
    "features": 17,
    "threads": 2,
}
MIRRORED, STEPS_PER_EPOCH = 130, 5


def mirrored_digits() -> images.ImageData:
    digits = images.digits()
    pixels, labels = digits.train_images[:MIRRORED].flip(3), digits.train_labels[:MIRRORED]
    return dataclasses.replace(digits, train_images=pixels, train_labels=labels)


@dataclasses.dataclass
class Seen:
    """A finished run, the images that each step was given, and each update: rate, betas and new weights."""

    record: records.Record
    given: list[Tensor]
    updates: list[tuple[float, tuple[float, float], list[Tensor]]]
    network: nn.Module
    threads: set[int]
    saved_steps: list[int]
    kept: dict[str, Tensor]


def observe(tmp_path, seed=0, **changes: Any) -> Seen:
    """Make a run with such settings and watch it."""
    given, updates, networks, threads = [], [], [], set()

    def note_pass(network: nn.Module, inputs: tuple[Tensor], _: Any) -> None:
        if isinstance(network, Classifier) and torch.is_grad_enabled():
            given.append(inputs[0].clone())
            networks.append(network)
            threads.add(torch.get_num_threads())

    def note_update(optimizer: Optimizer, *_: Any) -> None:
        (group,) = optimizer.param_groups
        updates.append((group["lr"], group["betas"], [weight.detach().clone() for weight in group["params"]]))

    hooks = [register_module_forward_hook(note_pass), register_optimizer_step_post_hook(note_update)]
    try:
        record = recipes.run(
            "classifier", scale="quick", seed=seed, out=tmp_path / "out", changes={**UNUSUAL, **changes}
        )
    finally:
        for hook in hooks:
            hook.remove()
    saved = sorted(int(path.name.removeprefix("step-")) for path in (tmp_path / "out/checkpoints/classifier").iterdir())
    kept = load_file(tmp_path / "out" / "classifier.safetensors")
    return Seen(record, given, updates, networks[0], threads, saved, kept)


@pytest.fixture(scope="module")
def mirrored():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.SOURCES, "mirrored", mirrored_digits)
        yield


@pytest.fixture(scope="module")
def seen(mirrored, tmp_path_factory):
    return observe(tmp_path_factory.mktemp("seen"))


def rows(batches: Tensor) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in batches}


def test_every_training_picture_is_seen_once_an_epoch_and_no_other(seen):
    assert [len(batch) for batch in seen.given] == [UNUSUAL["batch"]] * STEPS_PER_EPOCH * UNUSUAL["epochs"]
    for epoch in range(UNUSUAL["epochs"]):
        shown = torch.cat(seen.given[epoch * STEPS_PER_EPOCH : (epoch + 1) * STEPS_PER_EPOCH])
        assert rows(shown) == rows(to_unit_range(mirrored_digits().train_images))


def test_optimizer_and_schedule_are_those_of_the_settings(seen):
    rates, betas, _ = zip(*seen.updates, strict=True)
    assert set(betas) == {(0.4, 0.95)}
    assert rates == pytest.approx([2e-3] * 6 + [2e-3 * share for share in (0.8, 0.6, 0.4, 0.2)])


def test_network_noise_dropout_and_threads_are_those_of_the_settings(seen):
    assert {layer.std for layer in seen.network.modules() if isinstance(layer, GaussianNoise)} == {0.07}
    assert {layer.probability for layer in seen.network.modules() if isinstance(layer, Dropout)} == {0.15, 0.3}
    assert [layer.out_channels for layer in seen.network.modules() if isinstance(layer, nn.Conv2d)] == [5, 10, 20]
    assert seen.network.head.in_features == 17
    assert seen.threads == {2}


def test_the_kept_weights_are_the_average_with_the_decay_of_the_settings(seen):
    first, *later = (weights for _, _, weights in seen.updates)
    average = first
    for weights in later:
        average = [0.7 * old + 0.3 * new for old, new in zip(average, weights, strict=True)]
    for name, expected in zip((name for name, _ in seen.network.named_parameters()), average, strict=True):
        torch.testing.assert_close(seen.kept[name], expected)


def test_checkpoints_come_when_the_settings_say(seen):
    assert {6, 9, 10} >= set(seen.saved_steps) >= {9, 10}


def test_an_augmentation_changes_what_is_seen(mirrored, tmp_path):
    moved = observe(tmp_path, epochs=1, augmentation=RandomAffine(shift_px=1.0, whole_pixels=True))
    plain = rows(to_unit_range(mirrored_digits().train_images))
    assert 0 < len(rows(torch.cat(moved.given)) & plain) < MIRRORED / 2


def test_another_seed_chooses_other_weights_and_another_order(seen, mirrored, tmp_path):
    other = observe(tmp_path, seed=1, epochs=1)
    assert not torch.equal(other.given[0], seen.given[0])
    assert not torch.equal(other.updates[0][2][0], seen.updates[0][2][0])


def test_every_setting_is_changed_here():
    assert UNUSUAL.keys() == {field.name for field in dataclasses.fields(classifier.Settings)}
    for scale in ("quick", "full"):
        plain = recipes.settings("classifier", scale=scale)
        assert all(getattr(plain, name) != value for name, value in UNUSUAL.items())


def test_no_test_picture_changes_what_is_learnt(seen, mirrored, monkeypatch, tmp_path):
    data = mirrored_digits()
    blank = dataclasses.replace(data, test_images=torch.zeros_like(data.test_images))
    monkeypatch.setitem(images.SOURCES, "mirrored", lambda: blank)
    again = observe(tmp_path)
    assert all(torch.equal(again.kept[name], value) for name, value in seen.kept.items())
    assert again.record["metrics"] != seen.record["metrics"]


def test_it_records_the_accuracy_of_the_last_epoch_on_the_test_pictures(seen):
    assert seen.record["metrics"] == {"test_accuracy": seen.record["history"]["classifier"][-1]["test_accuracy"]}


def test_the_shipped_judge_of_digits_repeats_its_record():
    found = pretrained.evaluate("classifier_digits")
    assert found == pytest.approx(pretrained.read_record("classifier_digits")["metrics"], abs=0.002)
    assert found["test_accuracy"] > 0.98


def test_it_draws_nothing():
    with pytest.raises(InputError, match="nothing here can draw: it holds classifier, and no generator"):
        pretrained.sample("classifier_digits", 3, seed=0)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"data": "letters"}, "data 'letters' is unknown"),
        ({"batch": 0}, "batch=0: use at least 1"),
        ({"average": 1.0}, "average=1.0: use less than 1"),
        ({"labels": 3}, "labels is no setting of this recipe"),
    ],
)
def test_what_it_cannot_use_is_refused_before_training(changes, says):
    with pytest.raises(InputError, match=says):
        recipes.run("classifier", scale="quick", seed=0, changes=changes)


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(runtime, "processes", lambda: 3)
    with pytest.raises(InputError, match="batch=100 cannot be shared by 3 processes"):
        classifier.prepare(recipes.settings("classifier", scale="quick"), seed=0)
