import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from course_lib import pretrained, recipes, records, runtime
from course_lib.data import images
from course_lib.data.augment import RandomAffine
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.accuracy import accuracy
from course_lib.losses.adversarial import generator_loss
from course_lib.losses.semi_supervised import feature_matching_loss, real_logit
from course_lib.models.blocks import Dropout, GaussianNoise
from course_lib.models.classifier import Classifier
from course_lib.models.semi_supervised_gan import Generator
from course_lib.recipes import semi_supervised, shared
from course_lib.recipes.run_folder import open_run_folder
from course_lib.recipes.settings import from_record
from course_lib.training.steps import semi_supervised_step, supervised_step

JUDGED = ("classifier_frechet", "class_entropy_nats")
IDENTITY = {"recipe": "ssgan", "scale": "quick", "seed": 0, "settings": {}, "data_sha256": ""}


@pytest.fixture(scope="module")
def short():
    """The quick recipe, cut to one epoch, with its data."""
    settings = recipes.settings("ssgan", scale="quick", epochs=1)
    return settings, *semi_supervised.prepare(settings, seed=0)


def test_settings_can_be_changed():
    plain = recipes.settings("ssgan", scale="quick")
    changed = recipes.settings("ssgan", scale="quick", labels=100)
    assert dataclasses.replace(plain, labels=100) == changed


def test_without_augmentation_no_picture_is_changed():
    bare = recipes.settings("ssgan", scale="full", augmentation=None)
    assert bare.augmentation is None


def test_what_need_not_be_given_is_taken_away_by_the_word_none():
    full = recipes.settings("dcgan", scale="full")
    bare = recipes.settings("dcgan", scale="full", penalty="none", penalty_weight=0.0, penalty_steps=1)
    assert full.penalty == "r1" and bare.penalty is None
    with pytest.raises(InputError, match="game='none'"):
        recipes.settings("dcgan", scale="full", game="none")


def test_a_shift_can_be_changed_and_the_rest_of_the_augmentation_stays():
    plain = recipes.settings("ssgan", scale="quick").augmentation
    changed = recipes.settings("ssgan", scale="quick", shift_px=2).augmentation
    assert changed == dataclasses.replace(plain, shift_px=2.0) != plain


def test_an_unknown_recipe_is_named_with_those_there_are():
    with pytest.raises(InputError, match="'sgan' is unknown: use ssgan"):
        recipes.run("sgan", scale="quick", seed=0)


def test_baseline_and_discriminator_are_the_same_network_with_the_same_first_weights(short):
    settings, data, labelled = short
    still = dataclasses.replace(settings, learning_rate=0.0)
    baseline = semi_supervised.train_baseline(still, data, labelled, seed=0).classifier
    discriminator = semi_supervised.train_ssgan(still, data, labelled, seed=0).classifier
    assert str(baseline) == str(discriminator)
    for (name, one), other in zip(baseline.state_dict().items(), discriminator.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_no_label_outside_the_labelled_few_is_ever_used(short):
    settings, data, labelled = short
    wrong = data.train_labels.clone()
    wrong[~labelled] = (wrong[~labelled] + 1) % 10
    lied_to = dataclasses.replace(data, train_labels=wrong)
    honest = semi_supervised.train_ssgan(settings, data, labelled, seed=0)
    deceived = semi_supervised.train_ssgan(settings, lied_to, labelled, seed=0)
    assert honest.history == deceived.history


def test_no_test_image_changes_what_is_learnt(short):
    settings, data, labelled = short
    blank = dataclasses.replace(data, test_images=torch.zeros_like(data.test_images))
    weights = [
        semi_supervised.train_ssgan(settings, images, labelled, seed=0).classifier.state_dict()
        for images in (data, blank)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_an_unknown_ablation_is_named_with_those_there_are():
    with pytest.raises(InputError, match="ablation='no_gan': Input should be 'no_unlabelled', .*'noise_fakes'"):
        recipes.settings("ssgan", scale="quick", ablation="no_gan")


def train_without(ablation, short, **changes):
    settings, data, labelled = short
    settings = dataclasses.replace(settings, ablation=ablation, **changes)
    return semi_supervised.train_ssgan(settings, data, labelled, seed=0)


def test_real_fakes_cannot_be_told_from_real_pictures_and_noise_can(short):
    last = {name: train_without(name, short, epochs=3).history[-1] for name in ("real_fakes", "noise_fakes")}
    assert last["real_fakes"]["real_or_fake_loss"] > 0.69  # log 2: the two are alike
    assert last["noise_fakes"]["real_or_fake_loss"] < 0.1


def test_with_validation_images_no_test_image_is_looked_at_and_the_record_says_so(monkeypatch):
    def without_test():
        data = images.digits()
        return dataclasses.replace(data, test_images=data.test_images[:0], test_labels=data.test_labels[:0])

    monkeypatch.setitem(images.SOURCES, "digits", without_test)
    record = recipes.run("ssgan", scale="quick", seed=0, changes={"epochs": 1, "validation": 397})
    assert record["metrics"].keys() == {"validation_accuracy", "baseline_validation_accuracy", "gain_points"}
    assert record["identity"]["settings"]["validation"] == 397


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, recipes.run("ssgan", scale="quick", seed=3, changes={"epochs": 1}, out=out)


def test_a_run_leaves_record_weights_curve_and_checkpoints(finished):
    out, record = finished
    assert records.read(out / "record.json") == json.loads(json.dumps(record))
    names = {path.name for path in out.iterdir()} - {".lock"}
    expected = {
        "baseline.safetensors",
        "discriminator.safetensors",
        "generator.safetensors",
        "curve.png",
        "checkpoints",
        "run.json",
        "samples",
    }
    assert names == expected | {"record.json"}
    assert record["metrics"].keys() == {"test_accuracy", "baseline_test_accuracy", "gain_points"}
    assert record["identity"]["recipe"] == "ssgan" and record["identity"]["seed"] == 3
    assert len(record["history"]["ssgan"]) == len(record["history"]["baseline"]) == 1


def test_stored_weights_give_the_recorded_accuracy(finished):
    out, record = finished
    network = Classifier(channels=1, side_px=8, classes=10, noise_std=0.0, dropout=0.0)
    network.load_state_dict(load_file(out / "discriminator.safetensors"))
    data = images.digits()
    found = accuracy(network, to_unit_range(data.test_images), data.test_labels)
    assert found == record["metrics"]["test_accuracy"]


def test_a_finished_run_is_repeated_and_not_made_again(finished):
    out, record = finished
    before = (out / "record.json").stat().st_mtime_ns
    again = recipes.run("ssgan", scale="quick", seed=3, changes={"epochs": 1}, out=out, resume=True)
    assert again["metrics"] == record["metrics"] and again["resumed_from_step"] > 0
    assert (out / "record.json").stat().st_mtime_ns == before


def test_a_folder_that_holds_a_run_is_refused_without_resume(finished):
    with pytest.raises(InputError, match="not empty: add --resume"):
        recipes.run("ssgan", scale="quick", seed=3, changes={"epochs": 1}, out=finished[0])


@pytest.mark.parametrize(
    "seed, changes, message", [(4, {}, "seed=3.*seed=4"), (3, {"labels": 60}, "labels=50.*labels=60")]
)
def test_a_folder_of_another_run_is_not_continued(finished, seed, changes, message):
    with pytest.raises(InputError, match=message):
        recipes.run("ssgan", scale="quick", seed=seed, out=finished[0], resume=True, changes={"epochs": 1} | changes)


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path):
    with open_run_folder(tmp_path / "out", identity=IDENTITY, resume=True):
        with pytest.raises(InputError, match="in use by another process"):
            with open_run_folder(tmp_path / "out", identity=IDENTITY, resume=True):
                pass
    with open_run_folder(tmp_path / "out", identity=IDENTITY, resume=True):
        pass


def test_resume_without_a_folder_says_what_is_missing():
    with pytest.raises(InputError, match="--out"):
        recipes.run("ssgan", scale="quick", seed=0, resume=True)


# ── What a run does, watched through torch's own hooks ────────────────────────────────────────────────────────────


class Pass(NamedTuple):
    """A network that is being trained was given something and returned something."""

    network: nn.Module
    given: Tensor
    returned: Any
    training: bool


class Update(NamedTuple):
    """An optimizer made a step with this rate and these betas, which led to these weights."""

    first_weight: nn.Parameter
    rate: float
    betas: tuple[float, float]
    weights: list[Tensor]


@contextmanager
def watching() -> Iterator[tuple[list[Pass], list[Update]]]:
    """Yield the passes and the updates that are made within; the lists grow while a run goes on."""
    passes, updates = [], []

    def note_pass(network: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
        # Without gradients a network is being set up or measured.
        if torch.is_grad_enabled() and isinstance(network, Classifier | Generator):
            passes.append(Pass(network, given[0].detach(), returned, network.training))

    def note_update(optimizer: Optimizer, *_: Any) -> None:
        (group,) = optimizer.param_groups
        weights = [weight.detach().clone() for weight in group["params"]]
        updates.append(Update(group["params"][0], group["lr"], group["betas"], weights))

    hooks = [register_module_forward_hook(note_pass), register_optimizer_step_post_hook(note_update)]
    try:
        yield passes, updates
    finally:
        for hook in hooks:
            hook.remove()


def pictures(*batches: Tensor) -> set[bytes]:
    """Return the different pictures (or other rows) of these batches, in a form that can be compared and counted."""
    return {picture.contiguous().numpy().tobytes() for batch in batches for picture in batch}


@dataclasses.dataclass(frozen=True)
class Seen:
    """A finished run and what it was seen to do; the networks have the names of their files."""

    settings: semi_supervised.SemiSupervised
    data: images.ImageData
    record: dict[str, Any]
    kept: dict[str, nn.Module]
    saved_steps: dict[str, list[int]]
    drawn_steps: list[int]
    passes: dict[str, list[Pass]]
    updates: dict[str, list[Update]]

    def batches(self) -> list[tuple[Tensor, ...]]:
        """Return the labelled, unlabelled and generated pictures that the discriminator was shown in each step."""
        sizes = [self.settings.labelled_batch, self.settings.unlabelled_batch, self.settings.unlabelled_batch]
        return [one.given.split(sizes) for one in self.passes["discriminator"] if len(one.given) == sum(sizes)]

    def labelled(self) -> set[bytes]:
        return pictures(*(labelled for labelled, _, _ in self.batches()))

    def unlabelled(self) -> set[bytes]:
        return pictures(*(unlabelled for _, unlabelled, _ in self.batches()))

    def layers(self, kind: type[nn.Module]) -> list[list[Any]]:
        """Return the layers of a kind in the baseline, and those in the discriminator, as they were trained."""
        networks = [self.passes[name][0].network for name in CLASSIFIERS]
        return [[layer for layer in network.modules() if isinstance(layer, kind)] for network in networks]


CLASSIFIERS = ("baseline", "discriminator")
# Each unlike what the recipe has, at either scale. Augmentation and ablation have runs of their own.
UNUSUAL = {
    "data": "mirrored",
    "labels": 20,
    "epochs": 2,
    "learning_rate": 3e-3,
    "noise_std": 0.07,
    "dropout": 0.3,
    "average": 0.7,
    "checkpoint_steps": 7,
    "validation": 60,
    "side_px": 12,
    "labelled_batch": 15,
    "unlabelled_batch": 45,
    "beta1": 0.4,
    "beta2": 0.95,
    "hold": 0.6,
    "latent_dim": 37,
    "sample_steps": 4,
    "threads": 2,
}
MIRRORED, STEPS_PER_EPOCH = 260, 5  # 60 of the 260 pictures are set aside, the others come 45 at a time


def mirrored_digits() -> images.ImageData:
    digits = images.digits()
    pixels, labels = digits.train_images[:MIRRORED].flip(3), digits.train_labels[:MIRRORED]
    return dataclasses.replace(digits, train_images=pixels, train_labels=labels)


@pytest.fixture(scope="module")
def unusual():
    """A function that returns the settings above, with some of them changed."""
    plain = dataclasses.replace(recipes.RECIPES["ssgan"].quick, augmentation=None, **UNUSUAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.SOURCES, "mirrored", mirrored_digits)
        yield lambda **changes: dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def observe(unusual, tmp_path_factory):
    """A function that makes a whole run with such settings and watches it."""

    def make(seed: int = 5, **changes: Any) -> Seen:
        recipe, settings = recipes.RECIPES["ssgan"], unusual(**changes)
        out = tmp_path_factory.mktemp("seen") / "out"
        with pytest.MonkeyPatch.context() as patch, watching() as (passes, updates):
            patch.setitem(recipes.RECIPES, "unusual", dataclasses.replace(recipe, quick=settings))
            record = recipes.run("unusual", scale="quick", seed=seed, out=out)
        networks = list(dict.fromkeys(one.network for one in passes))  # the baseline is trained first
        classifiers = [network for network in networks if isinstance(network, Classifier)]
        generators = [network for network in networks if isinstance(network, Generator)]
        named = dict(zip(CLASSIFIERS, classifiers, strict=True)) | dict(zip(["generator"], generators, strict=False))
        form = images.ImageForm(**record["images"])
        kept = {name: build(settings, form) for name, build in recipe.family.NETWORKS.items()}
        for name, network in kept.items():
            network.eval().load_state_dict(load_file(out / f"{name}.safetensors"))
        return Seen(
            settings=settings,
            data=images.load("mirrored", side_px=12, validation=60),
            record=record,
            kept=kept,
            saved_steps={
                folder.name: sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())
                for folder in (out / "checkpoints").iterdir()
            },
            drawn_steps=sorted(int(path.stem.removeprefix("step-")) for path in (out / "samples").iterdir()),
            passes={name: [one for one in passes if one.network is network] for name, network in named.items()},
            updates={
                name: [one for one in updates if one.first_weight is next(network.parameters())]
                for name, network in named.items()
            },
        )

    return make


@pytest.fixture(scope="module")
def seen(observe):
    return observe()


def sources(seen: Seen) -> set[str]:
    """Return the names of the data that hold all pictures that were shown."""
    known = {name: images.load(name, side_px=seen.settings.side_px).train_images for name in ("digits", "mirrored")}
    return {name for name, pixels in known.items() if seen.unlabelled() <= pictures(to_unit_range(pixels))}


def hold_of(updates: list[Update]) -> float:
    """Return for which part of the steps the rate was held, told from the last: there 1/n of n steps are left."""
    return round(1 - updates[0].rate / updates[-1].rate / len(updates), 9)


# How a run shows the value of a setting: all values that can be read back from it.
SHOWN = {
    "data": sources,
    "labels": lambda seen: {len(seen.labelled()), len(pictures(*(one.given for one in seen.passes["baseline"])))},
    "epochs": lambda seen: {len(updates) / STEPS_PER_EPOCH for updates in seen.updates.values()},
    "learning_rate": lambda seen: {updates[0].rate for updates in seen.updates.values()},
    "noise_std": lambda seen: {layer.std for layers in seen.layers(GaussianNoise) for layer in layers},
    "dropout": lambda seen: {max(layer.probability for layer in layers) for layers in seen.layers(Dropout)},
    "checkpoint_steps": lambda seen: {steps[0] for steps in seen.saved_steps.values()},
    "validation": lambda seen: {MIRRORED - len(seen.unlabelled())},
    "side_px": lambda seen: {one.given.shape[-1] for name in CLASSIFIERS for one in seen.passes[name]},
    "labelled_batch": lambda seen: {len(one.given) for one in seen.passes["baseline"]},
    "unlabelled_batch": lambda seen: {len(one.given) for one in seen.passes["generator"]},
    "beta1": lambda seen: {update.betas[0] for updates in seen.updates.values() for update in updates},
    "beta2": lambda seen: {update.betas[1] for updates in seen.updates.values() for update in updates},
    "hold": lambda seen: {hold_of(updates) for updates in seen.updates.values()},
    "latent_dim": lambda seen: {one.given.shape[1] for one in seen.passes["generator"]},
    "sample_steps": lambda seen: set(np.diff(seen.drawn_steps[:3]).tolist()),
    "threads": lambda seen: {seen.record["environment"]["threads"]},
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_setting_reaches_the_object_it_is_for(seen, name):
    assert SHOWN[name](seen) == {getattr(seen.settings, name)}


def test_both_players_and_the_baseline_were_watched_in_every_step(seen):
    counts = {name: (len(seen.passes[name]), len(seen.updates[name])) for name in seen.passes}
    steps = 2 * STEPS_PER_EPOCH
    assert counts == {"baseline": (steps, steps), "discriminator": (2 * steps, steps), "generator": (steps, steps)}
    assert all(one.training for passes in seen.passes.values() for one in passes)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_that_is_kept_averages_its_steps_with_the_decay_of_the_settings(seen, name):
    decay, (first, *later) = seen.settings.average, [update.weights for update in seen.updates[name]]
    average = first
    for weights in later:
        average = [decay * old + (1 - decay) * new for old, new in zip(average, weights, strict=True)]
    for found, expected in zip(seen.kept[name].parameters(), average, strict=True):
        torch.testing.assert_close(found.detach(), expected)


def test_the_generator_that_is_kept_is_that_of_the_last_step(seen):
    last = seen.updates["generator"][-1].weights
    assert all(torch.equal(*pair) for pair in zip(seen.kept["generator"].parameters(), last, strict=True))


def test_a_record_describes_the_networks_that_were_trained(seen):
    assert {name: str(network) for name, network in seen.kept.items()} == {
        name: str(passes[0].network) for name, passes in seen.passes.items()
    }


def test_the_metrics_are_those_of_the_networks_that_are_kept(seen):
    pixels, labels = to_unit_range(seen.data.test_images), seen.data.test_labels
    metrics = {name: accuracy(seen.kept[name], pixels, labels) for name in CLASSIFIERS}
    assert seen.record["metrics"]["validation_accuracy"] == metrics["discriminator"]
    assert seen.record["metrics"]["baseline_validation_accuracy"] == metrics["baseline"]


def test_the_record_takes_the_last_epoch_not_the_first_nor_the_best(unusual, monkeypatch):
    scores = iter([0.5, 0.875, 0.75, 0.25, 0.625, 0.375])  # of the baseline, then of the GAN
    monkeypatch.setattr(semi_supervised, "accuracy", lambda *_: next(scores))
    found = recipes.run("ssgan", scale="quick", seed=0, changes={"epochs": 3, "data": "mirrored", "labels": 20})
    assert found["metrics"] == {"test_accuracy": 0.375, "baseline_test_accuracy": 0.75, "gain_points": -37.5}


def test_every_training_picture_is_shown_without_its_label_and_none_that_is_set_aside(seen):
    assert seen.unlabelled() == pictures(to_unit_range(seen.data.train_images))


def test_the_labelled_pictures_come_with_their_own_labels(seen):
    label_of = {
        picture.numpy().tobytes(): label
        for picture, label in zip(to_unit_range(seen.data.train_images), seen.data.train_labels, strict=True)
    }
    count = seen.settings.labelled_batch
    for name, history in (("baseline", "baseline"), ("discriminator", "ssgan")):
        losses = []
        for one in seen.passes[name]:
            if len(one.given) == seen.settings.unlabelled_batch:
                continue  # the pictures that the generator is judged by
            labels = [label_of[picture.contiguous().numpy().tobytes()] for picture in one.given[:count]]
            losses.append(cross_entropy(one.returned.logits[:count], torch.stack(labels)).item())
        means = [sum(losses[:STEPS_PER_EPOCH]) / STEPS_PER_EPOCH, sum(losses[STEPS_PER_EPOCH:]) / STEPS_PER_EPOCH]
        assert [epoch["class_loss"] for epoch in seen.record["history"][history]] == pytest.approx(means, rel=1e-5)


def test_latent_vectors_are_standard_normal_and_never_come_twice(seen):
    latent = torch.cat([one.given for one in seen.passes["generator"]])
    assert latent.shape == (450, 37) and len(pictures(latent)) == 450 and len(pictures(latent.T)) == 37
    assert latent.mean().item() == pytest.approx(0, abs=0.03) and latent.std().item() == pytest.approx(1, abs=0.03)


def test_the_discriminator_is_shown_what_the_generator_drew(seen):
    drawn = [one.returned for one in seen.passes["generator"]]
    judged = [one.given for one in seen.passes["discriminator"][1::2]]
    for (_, _, fake), picture, again in zip(seen.batches(), drawn, judged, strict=True):
        assert torch.equal(fake, picture) and torch.equal(fake, again)


def test_a_training_begins_with_standard_outputs_on_the_training_pictures(observe):
    still = observe(learning_rate=0.0, noise_std=0.0, dropout=0.0, epochs=1)
    for name in CLASSIFIERS:
        logits = still.kept[name](to_unit_range(still.data.train_images)).logits
        assert logits.mean(0).abs().max() < 1e-3 and (logits.std(0) - 1).abs().max() < 1e-3, name


def test_another_seed_chooses_other_labels_weights_orders_and_noise(seen, observe):
    other = observe(seed=6, epochs=1)
    assert seen.labelled() != other.labelled()
    for what in (
        lambda run: run.updates["baseline"][0].weights[0],
        lambda run: run.passes["generator"][0].given,
        lambda run: run.batches()[0][1],
    ):
        assert not torch.equal(what(seen), what(other))


@dataclasses.dataclass(frozen=True)
class WatchedAffine(RandomAffine):
    """Keeps what it was given and what it made of it."""

    calls: list[tuple[Tensor, Tensor]] = dataclasses.field(default_factory=list, compare=False)

    def __call__(self, images: Tensor) -> Tensor:
        changed = super().__call__(images)
        self.calls.append((images, changed))
        return changed


@pytest.mark.parametrize("augment_unlabelled", [True, False])
def test_labelled_pictures_are_augmented_and_the_others_as_the_settings_say(observe, augment_unlabelled):
    augmentation = WatchedAffine(shift_px=2.0)
    run = observe(augmentation=augmentation, augment_unlabelled=augment_unlabelled, epochs=1)
    originals = pictures(to_unit_range(run.data.train_images))
    shown = [one.given for one in run.passes["baseline"]]
    for labelled, unlabelled, _ in run.batches():
        shown += [labelled, unlabelled] if augment_unlabelled else [labelled]
        assert augment_unlabelled or pictures(unlabelled) <= originals
    for (given, changed), picture in zip(augmentation.calls, shown, strict=True):
        assert pictures(given) <= originals and torch.equal(changed, picture)


@pytest.mark.parametrize("ablation", [None, "no_feature_matching"])
def test_the_generator_minimises_the_loss_that_its_ablation_leaves(seen, observe, ablation):
    run = seen if ablation is None else observe(ablation=ablation, epochs=1)
    first, count = run.settings.labelled_batch, run.settings.unlabelled_batch
    losses = []
    for of_all, of_fakes in zip(*[iter(run.passes["discriminator"][: 2 * STEPS_PER_EPOCH])] * 2, strict=True):
        if ablation is None:
            losses.append(feature_matching_loss(of_all.returned.features[first:][:count], of_fakes.returned.features))
        else:
            losses.append(generator_loss(real_logit(of_fakes.returned.logits)))
    expected = torch.stack(losses).mean().item()
    assert run.record["history"]["ssgan"][0]["generator_loss"] == pytest.approx(expected, rel=1e-5)


def test_without_unlabelled_pictures_no_other_picture_is_looked_at(observe):
    run = observe(ablation="no_unlabelled", epochs=1)
    assert len(run.labelled()) == 20 and run.unlabelled() == run.labelled()


@pytest.mark.parametrize("ablation", ["real_fakes", "noise_fakes"])
def test_a_generator_whose_place_is_taken_is_neither_asked_nor_taught(observe, ablation):
    run = observe(ablation=ablation, epochs=1)
    assert "generator" not in run.passes and "generator_loss" not in run.record["history"]["ssgan"][0]
    originals = pictures(to_unit_range(run.data.train_images))
    for _, unlabelled, fake in run.batches():
        assert pictures(fake) != pictures(unlabelled)
        assert (pictures(fake) <= originals) is (ablation == "real_fakes")
    fakes = torch.cat([fake for _, _, fake in run.batches()])
    if ablation == "noise_fakes":  # every value from -1 to 1 is as likely as any other
        shares = fakes.histc(4, min=-1, max=1) / fakes.numel()
        assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.02)


def test_trained_networks_are_returned_ready_for_use(unusual):
    settings = unusual(epochs=1)
    data = semi_supervised.prepare(settings, seed=0)
    baseline = semi_supervised.train_baseline(settings, *data, seed=0)
    ssgan = semi_supervised.train_ssgan(settings, *data, seed=0)
    for network in (baseline.classifier, ssgan.classifier, ssgan.generator):
        assert not any(layer.training for layer in network.modules())


def test_a_run_computes_in_the_precision_that_its_settings_name(short):
    settings, data, labelled = short
    weights = {}
    for precision in ("float32", "bfloat16"):
        asked = dataclasses.replace(settings, precision=precision)
        trained = semi_supervised.train_baseline(asked, data, labelled, seed=0)
        assert runtime.describe()["precision"] == precision
        weights[precision] = trained.classifier.head.bias
    assert not torch.equal(*weights.values())
    torch.testing.assert_close(*weights.values(), atol=0.1, rtol=0.1)


def test_every_setting_is_watched():
    """A new one needs a line in SHOWN, or a test of its own and a line here."""
    by_a_test_of_its_own = {
        "augmentation": test_labelled_pictures_are_augmented_and_the_others_as_the_settings_say,
        "augment_unlabelled": test_labelled_pictures_are_augmented_and_the_others_as_the_settings_say,
        "average": test_a_classifier_that_is_kept_averages_its_steps_with_the_decay_of_the_settings,
        "ablation": test_the_generator_minimises_the_loss_that_its_ablation_leaves,
        "precision": test_a_run_computes_in_the_precision_that_its_settings_name,
    }
    names = {field.name for field in dataclasses.fields(semi_supervised.SemiSupervised)}
    assert SHOWN.keys() | by_a_test_of_its_own.keys() == names
    assert UNUSUAL.keys() >= SHOWN.keys()
    for name, value in UNUSUAL.items():
        assert all(getattr(recipes.settings("ssgan", scale=scale), name) != value for scale in ("quick", "full")), name


# ── What the recipes say, and the records of what they made ───────────────────────────────────────────────────────


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_a_recipe_regularises_averages_and_lets_the_rate_fall(scale):
    settings = recipes.settings("ssgan", scale=scale)
    assert settings.noise_std > 0 and settings.dropout > 0 and settings.augmentation is not None
    assert settings.average > 0.9 and 0 < settings.hold < 1
    assert settings.validation == 0 and settings.ablation is None


@pytest.mark.parametrize("name", pretrained.names())
def test_shipped_weights_are_those_of_the_recipe_and_their_metrics_those_of_the_last_epoch(name):
    record = pretrained.read_record(name)
    identity = record["identity"]
    assert identity["settings"] == dataclasses.asdict(recipes.settings(identity["recipe"], scale=identity["scale"]))
    expected = {
        f"baseline_{key}" if training == "baseline" else key: value
        for training, history in record["history"].items()
        for key, value in history[-1].items()
    }
    metrics = record["metrics"]
    if identity["recipe"] == "diffusion":  # it draws what the judge needs, and tests itself, once more after training
        metrics = {key: pytest.approx(value, rel=0.01) for key, value in metrics.items() if key not in JUDGED}
    assert metrics and metrics == {key: expected[key] for key in metrics}


def test_shipped_weights_are_measured_on_the_pictures_of_their_record(unusual, tmp_path, monkeypatch):
    changes = {"epochs": 1, "data": "mirrored", "side_px": 12, "labels": 20}
    run = recipes.run("ssgan", scale="quick", seed=0, out=tmp_path / "out", changes=changes)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    pretrained.ship(tmp_path / "out", "x", networks=["discriminator", "baseline"])
    assert pretrained.evaluate("x") == {key: run["metrics"][key] for key in ("test_accuracy", "baseline_test_accuracy")}


# ── The recipe itself ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_full_recipe_is_the_one_that_made_the_shipped_weights():
    identity = pretrained.read_record("ssgan_mnist_1000")["identity"]
    assert dataclasses.asdict(recipes.RECIPES["ssgan"].full) == identity["settings"]


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_a_recipe_leaves_out_nothing_that_the_method_is_made_of(scale):
    settings = recipes.settings("ssgan", scale=scale)
    assert settings.noise_std > 0 and 0 < settings.dropout < 1, "the regularisation"
    assert settings.augmentation is not None and settings.augmentation != RandomAffine()
    assert 0.9 < settings.average < 1 and 0 < settings.hold < 1 and settings.learning_rate > 0
    assert settings.ablation is None and settings.validation == 0


# ── What recipes share ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["labelled_batch", "unlabelled_batch"])
def test_a_batch_that_the_processes_cannot_share_equally_is_refused(name, monkeypatch):
    settings = recipes.settings("ssgan", scale="quick", labelled_batch=60, unlabelled_batch=60)
    settings = dataclasses.replace(settings, **{name: 50})
    monkeypatch.setattr(runtime, "processes", lambda: 3)
    with pytest.raises(InputError, match=f"{name}=50 cannot be shared by 3 processes: use a multiple, such as 48"):
        semi_supervised.prepare(settings, seed=0)


def test_processes_take_every_picture_of_a_batch_once(monkeypatch):
    batch, parts = torch.arange(60), []
    monkeypatch.setattr(runtime, "processes", lambda: 3)
    for index in range(3):
        monkeypatch.setattr(runtime, "process_index", lambda index=index: index)
        parts.append(shared.own_part(batch))
    assert {len(part) for part in parts} == {20} and torch.equal(torch.cat(parts).sort().values, batch)


def test_a_family_lacks_nothing(monkeypatch):
    for recipe in recipes.RECIPES.values():
        assert isinstance(recipe.family, shared.Family)
        assert type(recipe.quick) is type(recipe.full) is recipe.family.Settings
    monkeypatch.delattr(semi_supervised, "measure")
    assert not isinstance(semi_supervised, shared.Family)


@pytest.mark.parametrize("wrong", ["labels", "augmentation", "epochs"])
def test_settings_come_back_from_a_record_and_others_are_refused(wrong):
    settings = recipes.settings("ssgan", scale="quick", ablation="real_fakes")
    values = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert from_record(semi_supervised.Settings, values) == settings
    with pytest.raises(InputError, match=f"no settings of SemiSupervised .{wrong}='x': "):
        from_record(semi_supervised.Settings, values | {wrong: "x"})


# ── Another step, other networks, pictures on the way ─────────────────────────────────────────────────────────────


def test_training_takes_another_step_and_other_networks(short):
    settings, data, labelled = short
    steps = []

    def noting(step):
        def note(*arguments, **more):
            steps.append(step)
            return step(*arguments, **more)

        return note

    def plain(settings, form):
        return Classifier(**form._asdict(), noise_std=0.0, dropout=0.0)

    networks = semi_supervised.NETWORKS | {"baseline": plain, "discriminator": plain}
    how = {"seed": 0, "networks": networks}
    baseline = semi_supervised.train_baseline(settings, data, labelled, step=noting(supervised_step), **how)
    ssgan = semi_supervised.train_ssgan(settings, data, labelled, step=noting(semi_supervised_step), **how)
    updates = -(-len(data.train_images) // settings.unlabelled_batch)
    assert steps == [supervised_step] * updates + [semi_supervised_step] * updates
    for network in (baseline.classifier, ssgan.classifier):
        assert {layer.std for layer in network.modules() if isinstance(layer, GaussianNoise)} == {0.0}


def test_pictures_on_the_way_come_from_the_same_latents_and_change_nothing(short):
    settings, data, labelled = short
    seen = []
    watched = semi_supervised.train_ssgan(
        dataclasses.replace(settings, sample_steps=10), data, labelled, seed=0, show=lambda *shown: seen.append(shown)
    )
    unwatched = semi_supervised.train_ssgan(settings, data, labelled, seed=0)
    assert [step for step, _ in seen] == [0, 10, 20, 26]
    assert all(images.shape == (40, 1, 8, 8) and images.abs().max() <= 1 for _, images in seen)
    assert torch.equal(seen[-1][1], semi_supervised.sample(settings, {"generator": watched.generator}, 40, seed=0))
    for one, other in zip(watched.generator.parameters(), unwatched.generator.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_folder_is_made_before_all_processes_have_looked(tmp_path, monkeypatch):
    """A slow process must not find the folder that a fast one has just made, and refuse it."""
    out, existed = tmp_path / "out", []
    monkeypatch.setattr(runtime, "wait_for_everyone", lambda: existed.append(out.exists()))
    with open_run_folder(out, identity=IDENTITY, resume=False):
        assert existed == [False, True]
