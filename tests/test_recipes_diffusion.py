import pytest
import torch

from course_lib import recipes
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.losses.diffusion import cosine_schedule
from course_lib.recipes import diffusion

SHORT = {"epochs": 1, "width": 2, "batch": 100, "noise_steps": 60, "evaluations": 4}


def settings_of(**changes):
    return recipes.settings("diffusion", scale="quick", **SHORT | changes)


@pytest.fixture(scope="module")
def trained():
    settings = settings_of()
    prepared = diffusion.prepare(settings, seed=0)
    return settings, prepared, diffusion.train(settings, prepared, seed=0)


def test_each_step_sees_standard_noise_at_every_step_of_the_schedule(monkeypatch):
    step, given = diffusion.diffusion_step, []

    def watch(network, optimizer, pictures, noise, number, schedule, **how):
        given.append((noise.clone(), number.clone(), schedule))
        return step(network, optimizer, pictures, noise, number, schedule, **how)

    monkeypatch.setattr(diffusion, "diffusion_step", watch)
    settings = settings_of()
    diffusion.train(settings, diffusion.prepare(settings, seed=0), seed=0)
    noise = torch.cat([noise for noise, *_ in given])
    assert noise.std().item() == pytest.approx(1, abs=0.02) and len({row.numpy().tobytes() for row in noise}) == 1200
    assert set(torch.cat([number for _, number, _ in given]).tolist()) == set(range(60))
    assert all(torch.equal(schedule.alpha_bars, cosine_schedule(60).alpha_bars) for *_, schedule in given)


@pytest.mark.parametrize("evaluations, passes", [(4, 4), (60, 60), (None, 60)])
def test_it_draws_with_so_many_passes_as_the_settings_say(trained, evaluations, passes):
    _, _, outcome = trained
    network, seen = outcome.networks["denoiser"], []
    hook = network.register_forward_hook(lambda _, given, __: seen.append(given[1].unique().item()))
    settings = settings_of(evaluations=evaluations)
    drawn = diffusion.sample(settings, outcome.networks, 3, seed=4)
    assert len(seen) == passes and seen[0] == 59 and seen[-1] == 0
    assert drawn.shape == (3, 1, 8, 8) and drawn.abs().max() <= 1
    assert torch.equal(diffusion.sample(settings, outcome.networks, 3, seed=4), drawn)
    assert not torch.equal(diffusion.sample(settings, outcome.networks, 3, seed=5), drawn)
    hook.remove()


def test_the_loss_is_that_of_the_test_pictures_with_noise_that_is_always_the_same(trained):
    settings, prepared, outcome = trained
    torch.manual_seed(1)
    found = diffusion.measure(settings, prepared, outcome.networks)
    assert found == pytest.approx(outcome.metrics)
    torch.manual_seed(2)
    pixels, network = to_unit_range(prepared.data.test_images).repeat(4, 1, 1, 1), outcome.networks["denoiser"]
    noise, number = torch.randn_like(pixels), torch.randint(60, (len(pixels),))
    with torch.no_grad():
        seen = network(cosine_schedule(60).add_noise(pixels, noise, number), number)
    assert (seen - noise).square().mean().item() == pytest.approx(found["test_noise_loss"], rel=0.05)


def test_the_judge_sees_as_many_pictures_as_there_are_to_compare_with(trained):
    settings, prepared, outcome = trained
    drawn = diffusion.sample(settings, outcome.networks, 500, seed=0)
    assert prepared.scores(drawn).items() <= outcome.metrics.items()
    assert outcome.metrics.keys() == {"test_noise_loss", "classifier_frechet", "class_entropy_nats"}


def test_the_loss_on_the_way_is_told_and_drawing_is_left_for_the_end(trained):
    _, _, outcome = trained
    last = outcome.fitted["diffusion"].history[-1]
    assert last["test_noise_loss"] == outcome.metrics["test_noise_loss"] and "classifier_frechet" not in last


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"evaluations": 61}, "evaluations=61 are more than noise_steps=60: use at most as many"),
        ({"noise_steps": 1}, "noise_steps=1: use at least 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        diffusion.prepare(settings_of(**changes), seed=0)


def test_without_a_denoiser_nothing_is_drawn():
    with pytest.raises(InputError, match="holds vae, and no denoiser"):
        diffusion.sample(settings_of(), {"vae": torch.nn.Identity()}, 1, seed=0)
