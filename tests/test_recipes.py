import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from course_lib import recipes
from course_lib.data import images
from course_lib.errors import InputError
from course_lib.recipes import semi_supervised
from course_lib.recipes.run_folder import open_run_folder


@pytest.fixture(scope="module")
def short():
    """The quick recipe, cut to one epoch, with its data."""
    settings = recipes.settings("ssgan", scale="quick", epochs=1)
    return settings, *semi_supervised.prepare_data(settings, seed=0)


def test_settings_can_be_changed_and_none_changes_nothing():
    plain = recipes.settings("ssgan", scale="quick")
    changed = recipes.settings("ssgan", scale="quick", labels=100, epochs=None)
    assert dataclasses.replace(plain, labels=100) == changed


def test_without_augmentation_no_picture_is_changed():
    bare = recipes.settings("ssgan", scale="full", augmentation=False)
    assert bare.augmentation is None


def test_a_shift_can_be_changed_and_the_rest_of_the_augmentation_stays():
    plain, changed = (recipes.settings("ssgan", scale="quick", shift_px=shift).augmentation for shift in (None, 2))
    assert changed == dataclasses.replace(plain, shift_px=2.0) != plain


def test_an_unknown_recipe_is_named_with_those_there_are():
    with pytest.raises(InputError, match="'sgan' is unknown: use ssgan"):
        recipes.run("sgan", scale="quick", seed=0)


def test_baseline_and_discriminator_are_the_same_network_with_the_same_first_weights(short):
    settings, data, labelled = short
    still = dataclasses.replace(settings, learning_rate=0.0)
    baseline = semi_supervised.train_baseline(still, data, labelled, scale="quick", seed=0).classifier
    discriminator = semi_supervised.train_ssgan(still, data, labelled, scale="quick", seed=0).classifier
    assert str(baseline) == str(discriminator)
    for (name, one), other in zip(baseline.state_dict().items(), discriminator.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_no_label_outside_the_labelled_few_is_ever_used(short):
    settings, data, labelled = short
    wrong = data.train_labels.clone()
    wrong[~labelled] = (wrong[~labelled] + 1) % 10
    lied_to = dataclasses.replace(data, train_labels=wrong)
    honest = semi_supervised.train_ssgan(settings, data, labelled, scale="quick", seed=0)
    deceived = semi_supervised.train_ssgan(settings, lied_to, labelled, scale="quick", seed=0)
    assert honest.history == deceived.history


def test_no_test_image_changes_what_is_learnt(short):
    settings, data, labelled = short
    blank = dataclasses.replace(data, test_images=torch.zeros_like(data.test_images))
    weights = [
        semi_supervised.train_ssgan(settings, images, labelled, scale="quick", seed=0).classifier.state_dict()
        for images in (data, blank)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_an_unknown_ablation_is_named_with_those_there_are():
    with pytest.raises(InputError, match="'no_gan' is unknown: use no_unlabelled, .*noise_fakes"):
        recipes.settings("ssgan", scale="quick", ablation="no_gan")


def train_without(ablation, short, **changes):
    settings, data, labelled = short
    settings = dataclasses.replace(settings, ablation=ablation, **changes)
    return semi_supervised.train_ssgan(settings, data, labelled, scale="quick", seed=0)


def test_without_unlabelled_pictures_no_other_picture_is_looked_at(short):
    settings, data, labelled = short
    mixed_up = data.train_images.clone()
    mixed_up[~labelled] = mixed_up[~labelled].flip(0)
    # The first weights are scaled on training pictures, without a label and without the GAN: compare after those.
    still = semi_supervised._classifier
    try:
        semi_supervised._classifier = lambda settings, _, accelerator: still(settings, data, accelerator)
        losses = [
            train_without(ablation, (settings, pictures, labelled)).history[0]["class_loss"]
            for ablation in ("no_unlabelled", None)
            for pictures in (data, dataclasses.replace(data, train_images=mixed_up))
        ]
    finally:
        semi_supervised._classifier = still
    assert losses[0] == losses[1] and losses[2] != losses[3]


@pytest.mark.parametrize("ablation", ["real_fakes", "noise_fakes"])
def test_a_generator_whose_place_is_taken_learns_nothing(short, ablation):
    replaced, unmoved = train_without(ablation, short), train_without(ablation, short, learning_rate=0.0)
    for one, other in zip(replaced.generator.parameters(), unmoved.generator.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "generator_loss" not in replaced.history[0]
    assert replaced.history != unmoved.history


def test_real_fakes_cannot_be_told_from_real_pictures_and_noise_can(short):
    last = {name: train_without(name, short, epochs=3).history[-1] for name in ("real_fakes", "noise_fakes")}
    assert last["real_fakes"]["real_or_fake_loss"] > 0.69  # log 2: the two are alike
    assert last["noise_fakes"]["real_or_fake_loss"] < 0.1


def test_with_validation_images_no_test_image_is_looked_at_and_the_record_says_so(monkeypatch):
    def without_test():
        data = images.digits()
        return dataclasses.replace(data, test_images=data.test_images[:0], test_labels=data.test_labels[:0])

    monkeypatch.setitem(images.SOURCES, "digits", without_test)
    record = recipes.run("ssgan", scale="quick", seed=0, epochs=1, validation=397)
    assert record["metrics"].keys() == {"validation_accuracy", "baseline_validation_accuracy", "gain_points"}
    assert record["identity"]["validation"] == 397


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, recipes.run("ssgan", scale="quick", seed=3, epochs=1, out=out)


def test_a_run_leaves_record_weights_curve_and_checkpoints(finished):
    out, record = finished
    assert json.loads((out / "record.json").read_text()) == json.loads(json.dumps(record))
    names = {path.name for path in out.iterdir()} - {".lock"}
    expected = {
        "baseline.safetensors",
        "discriminator.safetensors",
        "generator.safetensors",
        "curve.png",
        "checkpoints",
    }
    assert names == expected | {"record.json"}
    assert record["metrics"].keys() == {"test_accuracy", "baseline_test_accuracy", "gain_points"}
    assert record["identity"]["recipe"] == "ssgan" and record["identity"]["seed"] == 3
    assert len(record["history"]["ssgan"]) == len(record["history"]["baseline"]) == 1


def test_stored_weights_give_the_recorded_accuracy(finished):
    from course_lib.data.images import digits, to_unit_range
    from course_lib.evaluation.accuracy import accuracy
    from course_lib.models.classifier import Classifier

    out, record = finished
    network = Classifier(channels=1, side_px=8, classes=10, noise_std=0.0, dropout=0.0)
    network.load_state_dict(load_file(out / "discriminator.safetensors"))
    data = digits()
    found = accuracy(network, to_unit_range(data.test_images), data.test_labels)
    assert found == record["metrics"]["test_accuracy"]


def test_a_finished_run_is_repeated_and_not_made_again(finished):
    out, record = finished
    before = (out / "record.json").stat().st_mtime_ns
    again = recipes.run("ssgan", scale="quick", seed=3, epochs=1, out=out, resume=True)
    assert again["metrics"] == record["metrics"] and again["resumed_from_step"] > 0
    assert (out / "record.json").stat().st_mtime_ns == before


def test_a_folder_that_holds_a_run_is_refused_without_resume(finished):
    with pytest.raises(InputError, match="not empty .*--resume"):
        recipes.run("ssgan", scale="quick", seed=3, epochs=1, out=finished[0])


@pytest.mark.parametrize(
    "changes, message", [({"seed": 4}, "seed=3.*seed=4"), ({"labels": 60}, "labels=50.*labels=60")]
)
def test_a_folder_of_another_run_is_not_continued(finished, changes, message):
    with pytest.raises(InputError, match=message):
        recipes.run("ssgan", scale="quick", out=finished[0], resume=True, **{"seed": 3, "epochs": 1} | changes)


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path):
    with open_run_folder(tmp_path, identity={}, resume=False):
        with pytest.raises(InputError, match="in use by another process"):
            with open_run_folder(tmp_path, identity={}, resume=False):
                pass
    with open_run_folder(tmp_path, identity={}, resume=False):
        pass


def test_resume_without_a_folder_says_what_is_missing():
    with pytest.raises(InputError, match="--out"):
        recipes.run("ssgan", scale="quick", seed=0, resume=True)
