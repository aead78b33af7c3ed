import dataclasses
import math

import pytest
import torch

from course_lib import recipes
from course_lib.data import images
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.losses.variational import negative_elbo
from course_lib.recipes import vae
from course_lib.training.samples import fixed_latents

SHORT = {"epochs": 1, "width": 2, "batch": 100}


def settings_of(**changes):
    return recipes.settings("vae", scale="quick", **SHORT | changes)


@pytest.fixture(scope="module")
def trained():
    settings = settings_of(latent_dim=7)
    prepared = vae.prepare(settings, seed=0)
    return settings, prepared, vae.train(settings, prepared, seed=0)


def test_each_step_sees_new_black_and_white_pictures_standard_noise_and_beta(monkeypatch):
    step, given = vae.vae_step, []

    def watch(network, optimizer, pictures, noise, **how):
        given.append((pictures.clone(), noise.clone(), how["beta"]))
        return step(network, optimizer, pictures, noise, **how)

    monkeypatch.setattr(vae, "vae_step", watch)
    settings = settings_of(beta=2.5, latent_dim=7, epochs=2)
    vae.train(settings, vae.prepare(settings, seed=0), seed=0)
    assert {beta for *_, beta in given} == {2.5}
    noise = torch.cat([noise for _, noise, _ in given])
    assert noise.shape == (2400, 7) and noise.std().item() == pytest.approx(1, abs=0.03)
    assert len({row.numpy().tobytes() for row in noise}) == 2400
    pictures = torch.cat([pictures for pictures, *_ in given])
    assert set(pictures.unique().tolist()) == {-1, 1}
    brightness = to_unit_range(images.digits().train_images).mean().item()
    assert pictures.mean().item() == pytest.approx(brightness, abs=0.01)


def test_the_bound_is_that_of_all_test_pictures_with_beta_one_and_adds_up(trained):
    settings, prepared, outcome = trained
    found = vae.measure(dataclasses.replace(settings, beta=9.0), prepared, outcome.networks)
    assert found == pytest.approx(outcome.metrics)
    parts = found["test_reconstruction_nats"] + found["test_kl_nats"]
    assert found["test_negative_elbo_nats"] == pytest.approx(parts)
    network, pixels = outcome.networks["vae"], to_unit_range(prepared.data.test_images)
    torch.manual_seed(5)  # with other noise the mean over the test pictures is nearly the same
    pictures = torch.where(torch.rand_like(pixels) < (pixels + 1) / 2, 1.0, -1.0)
    logits, mean, log_variance = network(pictures, torch.randn(len(pixels), 7))
    again = negative_elbo(logits, pictures, mean, log_variance).total_nats.mean().item()
    assert again == pytest.approx(found["test_negative_elbo_nats"], rel=0.02)
    assert found["test_negative_elbo_nats"] < 64 * math.log(2)  # better than a coin for each pixel


def test_pictures_are_decoded_from_fixed_latents(trained):
    settings, _, outcome = trained
    drawn = vae.sample(settings, outcome.networks, 5, seed=4)
    logits = outcome.networks["vae"].decoder(fixed_latents(5, 7, 4))
    torch.testing.assert_close(drawn, 2 * logits.sigmoid() - 1)
    assert not torch.allclose(drawn, vae.sample(settings, outcome.networks, 5, seed=5))
    with pytest.raises(InputError, match="holds generator, and no vae"):
        vae.sample(settings, {"generator": torch.nn.Identity()}, 1, seed=0)


def test_the_judge_sees_as_many_pictures_as_there_are_to_compare_with(trained):
    settings, prepared, outcome = trained
    drawn = vae.sample(settings, outcome.networks, 500, seed=0)
    assert prepared.scores(drawn).items() <= outcome.metrics.items()


def test_the_recipe_minimises_the_bound_itself():
    assert {recipes.settings("vae", scale=scale).beta for scale in ("quick", "full")} == {1.0}
