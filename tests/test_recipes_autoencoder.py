import dataclasses

import pytest
import torch

from course_lib import recipes
from course_lib.data import images
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.anomaly import auc
from course_lib.evaluation.reconstruction import mean_squared_errors, psnr
from course_lib.recipes import autoencoder

SHORT = {"epochs": 1, "width": 2, "batch": 100}


def settings_of(**changes):
    return recipes.settings("autoencoder", scale="quick", **SHORT | changes)


def given_by(monkeypatch, **changes):
    """Return what the steps of a short run were given to see and to answer, and its outcome."""
    step, given = autoencoder.autoencoder_step, []

    def watch(network, optimizer, inputs, targets, **how):
        given.append((inputs.clone(), targets.clone()))
        return step(network, optimizer, inputs, targets, **how)

    monkeypatch.setattr(autoencoder, "autoencoder_step", watch)
    settings = settings_of(**changes)
    prepared = autoencoder.prepare(settings, seed=0)
    return given, autoencoder.train(settings, prepared, seed=0), prepared


def test_a_plain_autoencoder_repeats_what_it_sees(monkeypatch):
    given, *_ = given_by(monkeypatch)
    assert all(torch.equal(inputs, targets) for inputs, targets in given)


@pytest.mark.parametrize("factor", [0.2, 0.5])
def test_a_denoiser_sees_clipped_noise_of_its_factor_and_shall_answer_with_clean_pictures(monkeypatch, factor):
    given, *_ = given_by(monkeypatch, noise_factor=factor)
    clean = {picture.numpy().tobytes() for picture in to_unit_range(images.digits().train_images)}
    for inputs, targets in given:
        assert {picture.contiguous().numpy().tobytes() for picture in targets} <= clean
        assert inputs.abs().max() == 1
        inside = (inputs - targets)[(targets.abs() < 0.1)]
        middle = inside.abs().median().item()  # of a normal distribution, 0.674 of its spread
        assert middle == pytest.approx(2 * factor * 0.674, rel=0.25)
    assert not torch.equal(given[0][0] - given[0][1], given[1][0] - given[1][1])


def test_the_latent_dim_is_that_of_the_settings():
    network = autoencoder.NETWORKS["autoencoder"](settings_of(latent_dim=7), images.ImageForm(1, 8, 10))
    assert network.encoder(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_a_class_that_is_held_out_is_never_seen_and_found_by_its_errors(monkeypatch):
    given, outcome, prepared = given_by(monkeypatch, held_out=3)
    digits = images.digits()
    known = to_unit_range(digits.train_images[digits.train_labels == 3])
    never = {picture.numpy().tobytes() for picture in known}
    assert not never & {picture.contiguous().numpy().tobytes() for _, targets in given for picture in targets}
    assert len(prepared.data.test_labels) == len(digits.test_labels)
    pixels, odd = to_unit_range(digits.test_images), digits.test_labels == 3
    made = autoencoder.reconstruct(outcome.networks["autoencoder"], pixels)
    errors = mean_squared_errors(pixels, made)
    area = auc(errors, odd)
    assert outcome.metrics == {
        "test_mse": pytest.approx(errors[~odd].mean().item()),
        "test_psnr_db": pytest.approx(psnr(pixels[~odd], made[~odd])),
        "anomaly_auc": area.value,
        "anomaly_auc_low": area.low,
        "anomaly_auc_high": area.high,
    }


def test_the_noise_of_a_measurement_is_always_the_same(monkeypatch):
    settings = settings_of(noise_factor=0.5)
    prepared = autoencoder.prepare(settings, seed=0)
    network = autoencoder.NETWORKS["autoencoder"](settings, prepared.data.form).eval()
    torch.manual_seed(1)
    one = autoencoder.measure(settings, prepared, {"autoencoder": network})
    torch.manual_seed(2)
    assert autoencoder.measure(settings, prepared, {"autoencoder": network}) == one
    bare = dataclasses.replace(settings, noise_factor=0.0)
    assert autoencoder.measure(bare, prepared, {"autoencoder": network}) != one


def test_pictures_on_the_way_are_inputs_then_answers_then_targets():
    shown = []
    settings = settings_of(noise_factor=0.5)
    prepared = autoencoder.prepare(settings, seed=0)
    autoencoder.train(settings, prepared, seed=0, show=lambda step, pictures: shown.append(pictures))
    inputs, answers, targets = shown[-1].split(autoencoder.SHOWN)
    assert torch.equal(targets, to_unit_range(prepared.data.test_images[: autoencoder.SHOWN]))
    assert torch.equal(inputs, shown[0][: autoencoder.SHOWN]) and not torch.equal(inputs, targets)
    assert not torch.equal(answers, shown[0].split(autoencoder.SHOWN)[1])


def test_it_draws_nothing():
    with pytest.raises(InputError, match="nothing here can draw: it holds autoencoder, .* use a run of vae"):
        autoencoder.sample(settings_of(), {"autoencoder": torch.nn.Identity()}, 3, seed=0)


@pytest.mark.parametrize("held_out", [10, 99])
def test_a_class_that_is_not_there_cannot_be_held_out(held_out):
    with pytest.raises(InputError, match=f"held_out={held_out} leaves nothing out .*: digits has 10 classes, so use 0"):
        autoencoder.prepare(settings_of(held_out=held_out), seed=0)


def test_the_denoising_recipe_is_that_of_the_article():
    for scale in ("quick", "full"):
        settings = recipes.settings("denoising_autoencoder", scale=scale)
        assert settings.noise_factor == 0.5 and recipes.settings("autoencoder", scale=scale).noise_factor == 0
    assert recipes.settings("autoencoder", scale="full").latent_dim == 32
