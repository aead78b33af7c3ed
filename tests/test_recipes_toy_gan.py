import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from course_lib import pretrained, recipes, records, runtime
from course_lib.data import toy
from course_lib.errors import InputError
from course_lib.losses.adversarial import GAMES
from course_lib.losses.gradient_penalty import gradient_penalty
from course_lib.models.blocks import Dropout
from course_lib.models.mlp_gan import Discriminator, Generator
from course_lib.recipes import toy_gan

# Each unlike what the recipe has. The remedies that change a loss or what is seen have tests of their own.
UNUSUAL = {
    "data": "grid",
    "data_std": 0.3,
    "steps": 6,
    "batch": 40,
    "generator_rate": 2e-3,
    "discriminator_rate": 3e-3,
    "checkpoint_steps": 4,
    "sample_steps": 3,
    "discriminator_dropout": 0.3,
    "generator_width": 17,
    "discriminator_width": 19,
    "depth": 3,
    "discriminator_steps": 2,
    "latent_dim": 5,
    "beta1": 0.4,
    "beta2": 0.9,
}

FEW = 256  # points that a generator is judged by, to be fast


class Given(NamedTuple):
    """What a step of a player was given, and the loss that it returned."""

    step: str
    real: Tensor
    fake: Tensor
    how: dict[str, Any]
    loss: float


@dataclasses.dataclass
class Seen:
    """A finished run and what it was seen to do."""

    settings: toy_gan.ToyGAN
    out: Path
    record: records.Record
    networks: dict[str, nn.Module]
    given: list[Given] = dataclasses.field(default_factory=list)
    sampled: list[Tensor] = dataclasses.field(default_factory=list)
    drawn: list[tuple[Tensor, Tensor]] = dataclasses.field(default_factory=list)
    updates: list[tuple[str, float, tuple[float, float]]] = dataclasses.field(default_factory=list)

    def of(self, step: str) -> list[Given]:
        return [one for one in self.given if one.step == step]

    def rates(self, player: str) -> set[float]:
        return {rate for name, rate, _ in self.updates if name == player}

    def layers(self, player: str, kind: type[nn.Module]) -> list[Any]:
        return [layer for layer in self.networks[player].modules() if isinstance(layer, kind)]


@pytest.fixture(scope="module")
def observe(tmp_path_factory):
    """A function that makes a whole run with some settings changed and watches it."""

    def make(seed: int = 3, **changes: Any) -> Seen:
        out = tmp_path_factory.mktemp("seen") / "out"
        seen = Seen(recipes.settings("toy_gan", scale="quick", **changes), out, {}, {})

        def watched(name: str) -> Callable[..., dict[str, Tensor]]:
            step = getattr(toy_gan, name)

            def watch(players, real, fake, **how):
                loss = step(players, real, fake, **how)
                seen.given.append(Given(name, real.clone(), fake.detach().clone(), how, *map(float, loss.values())))
                return loss

            return watch

        def note_update(optimizer: Optimizer, *_: Any) -> None:
            (group,) = optimizer.param_groups
            outputs = group["params"][-1].shape  # the last bias: a generator's has two numbers
            seen.updates.append(("generator" if outputs == (2,) else "discriminator", group["lr"], group["betas"]))

        def note_drawn(network: nn.Module, given: Any, returned: Any) -> None:
            if isinstance(network, Generator) and torch.is_grad_enabled():
                seen.drawn.append((given[0].detach(), returned.detach()))

        sample = toy.GaussianMixture.sample

        def note_sampled(mixture: toy.GaussianMixture, count: int) -> Tensor:
            seen.sampled.append(sample(mixture, count))
            return seen.sampled[-1]

        hooks = [register_optimizer_step_post_hook(note_update), register_module_forward_hook(note_drawn)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(toy_gan, "POINTS", FEW)
            patch.setattr(toy.GaussianMixture, "sample", note_sampled)
            for name in ("discriminator_step", "generator_step", "unrolled_generator_step"):
                patch.setattr(toy_gan, name, watched(name))
            try:
                seen.record = recipes.run("toy_gan", scale="quick", seed=seed, out=out, changes=changes)
            finally:
                for hook in hooks:
                    hook.remove()
        seen.networks = dict(pretrained.load(seen.out).networks)
        return seen

    return make


@pytest.fixture(scope="module")
def seen(observe):
    return observe(**UNUSUAL)


def data_of(seen: Seen) -> set[str]:
    modes = {len(make().centres): name for name, make in toy_gan.SOURCES.items()}
    return {modes[seen.record["images"]["classes"]]}


def std_of(seen: Seen) -> set[float]:
    points = torch.cat(seen.sampled)
    nearest = torch.cdist(points, toy.grid().centres).argmin(1)
    return {round((points - toy.grid().centres[nearest]).std().item(), 1)}


# How a run shows the value of a setting: all values that can be read back from it.
SHOWN = {
    "data": data_of,
    "data_std": std_of,
    "steps": lambda seen: {len(seen.of("generator_step"))},
    "batch": lambda seen: {len(one.real) for one in seen.given} | {len(one.fake) for one in seen.given},
    "generator_rate": lambda seen: seen.rates("generator"),
    "discriminator_rate": lambda seen: seen.rates("discriminator"),
    "checkpoint_steps": lambda seen: {
        min(int(path.name.removeprefix("step-")) for path in (seen.out / "checkpoints" / "toy_gan").iterdir())
    },
    "sample_steps": lambda seen: set(
        np.diff(sorted(int(path.stem.removeprefix("step-")) for path in (seen.out / "samples").iterdir())).tolist()
    ),
    "discriminator_dropout": lambda seen: {layer.probability for layer in seen.layers("discriminator", Dropout)},
    "generator_width": lambda seen: {layer.out_features for layer in seen.layers("generator", nn.Linear)[:-1]},
    "discriminator_width": lambda seen: {layer.out_features for layer in seen.layers("discriminator", nn.Linear)[:-1]},
    "depth": lambda seen: {len(seen.layers(player, nn.Linear)) - 1 for player in ("generator", "discriminator")},
    "discriminator_steps": lambda seen: {len(seen.of("discriminator_step")) / len(seen.of("generator_step"))},
    "latent_dim": lambda seen: {latent.shape[1] for latent, _ in seen.drawn},
    "beta1": lambda seen: {betas[0] for _, _, betas in seen.updates},
    "beta2": lambda seen: {betas[1] for _, _, betas in seen.updates},
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_setting_reaches_the_object_it_is_for(seen, name):
    assert SHOWN[name](seen) == {getattr(seen.settings, name)}


def test_both_players_see_new_real_points_and_what_the_generator_drew(seen):
    of_discriminator, of_generator = seen.of("discriminator_step"), seen.of("generator_step")
    for one, real, (latent, fake) in zip(of_discriminator, seen.sampled[1:], seen.drawn, strict=True):
        assert torch.equal(one.real, real) and torch.equal(one.fake, fake) and latent.std() > 0.8
    for one, last in zip(of_generator, of_discriminator[1::2], strict=True):
        assert torch.equal(one.real, last.real) and torch.equal(one.fake, last.fake)
    assert len({point.numpy().tobytes() for one in of_discriminator for point in one.real}) == 12 * 40


ONE_STEP = {"steps": 1, "generator_rate": 0.0, "discriminator_rate": 0.0}  # what is kept is what was trained


@pytest.mark.parametrize("game", GAMES)
def test_the_players_minimise_the_losses_of_their_game(observe, game):
    seen = observe(**ONE_STEP, game=game)
    first, last = seen.given
    discriminator = seen.networks["discriminator"]
    real, fake = discriminator(first.real), discriminator(first.fake)
    assert first.loss == pytest.approx(GAMES[game].discriminator(real, fake).item(), rel=1e-5, abs=1e-6)
    of_generator = GAMES[game].generator(*([real, fake] if GAMES[game].paired else [fake]))
    assert last.loss == pytest.approx(of_generator.item(), rel=1e-5, abs=1e-6)
    line = seen.record["history"]["toy_gan"][0]
    assert (line["discriminator_loss"], line["generator_loss"]) == pytest.approx((first.loss, last.loss))


def squared_slopes(discriminator: nn.Module, points: Tensor) -> Tensor:
    points = points.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(discriminator(points).sum(), points)
    return slopes.square().sum(1)


@pytest.mark.parametrize("penalty", toy_gan.PENALTIES)
def test_the_discriminator_pays_the_penalty_with_its_weight(observe, penalty):
    seen = observe(**ONE_STEP, penalty=penalty, penalty_weight=700.0)
    first, _ = seen.given
    discriminator = seen.networks["discriminator"]
    plain = softplus(-discriminator(first.real)).mean() + softplus(discriminator(first.fake)).mean()
    paid = first.loss - plain.item()
    if penalty == "gradient_penalty":  # at points drawn anew, between the two
        at_some = gradient_penalty(discriminator, first.real, first.fake, weight=700.0).item()
        assert paid == pytest.approx(at_some, rel=0.1)
    else:
        slopes = squared_slopes(discriminator, first.real).mean()
        if penalty == "r1_r2":
            slopes += squared_slopes(discriminator, first.fake).mean()
        assert paid == pytest.approx(350 * slopes.item(), rel=1e-3)


@pytest.mark.parametrize(
    "changes, share", [({"flip_probability": 0.35}, 0.35), ({"real_target": 0.9}, 0.1), ({"real_target": 0.6}, 0.4)]
)
@pytest.mark.parametrize("game", ["minimax", "non_saturating"])
def test_so_many_real_labels_are_wrong_as_the_settings_say_and_no_fake_ones(observe, game, changes, share):
    seen = observe(**ONE_STEP, game=game, **changes)
    loss = seen.of("discriminator_step")[0].how["game"].discriminator
    sure_of_real, sure_of_fake = torch.full((20_000,), 100.0), torch.full((20_000,), -100.0)
    assert loss(sure_of_real, sure_of_fake).item() == pytest.approx(100 * share, abs=1.5)
    assert loss(-sure_of_real, sure_of_fake).item() == pytest.approx(100 * (1 - share), abs=1.5)
    of_generator = seen.of("generator_step")[0]
    fake = seen.networks["discriminator"](of_generator.fake)
    assert of_generator.loss == pytest.approx(GAMES[game].generator(fake).item(), rel=1e-5)


def test_instance_noise_falls_to_nothing_and_both_players_look_through_it(observe):
    seen = observe(steps=4, batch=1000, instance_noise_std=3.0)
    for number, (latent_and_fake, real) in enumerate(zip(seen.drawn, seen.sampled[1:], strict=True)):
        for one in (seen.of("discriminator_step")[number], seen.of("generator_step")[number]):
            for noise in (one.fake - latent_and_fake[1], one.real - real):
                assert noise.std().item() == pytest.approx(3 * (1 - number / 4), rel=0.1)
                assert abs(noise.mean().item()) < 0.3


def test_without_noise_points_are_seen_as_they_are(seen):
    assert torch.equal(seen.given[0].real, seen.sampled[1])


@pytest.mark.parametrize("normed", [True, False])
def test_spectral_norm_holds_the_largest_singular_value_of_each_layer_at_1(observe, normed):
    seen = observe(steps=40, spectral_norm=normed)
    largest = [torch.linalg.matrix_norm(layer.weight, 2).item() for layer in seen.layers("discriminator", nn.Linear)]
    assert len(largest) == 3
    assert (largest == pytest.approx([1.0] * 3, rel=0.1)) is normed
    assert not any(hasattr(layer, "parametrizations") for layer in seen.layers("generator", nn.Linear))


def test_an_unrolled_generator_looks_ahead_as_far_and_as_fast_as_the_settings_say(observe):
    seen = observe(steps=2, unrolled_steps=3, unrolled_rate=0.7)
    assert not seen.of("generator_step")
    assert [(one.how["unrolled_steps"], one.how["rate"]) for one in seen.of("unrolled_generator_step")] == [
        (3, 0.7)
    ] * 2


def test_every_setting_is_watched():
    """A new one needs a line in SHOWN, or a test of its own and a line here."""
    by_a_test_of_its_own = {
        "game": test_the_players_minimise_the_losses_of_their_game,
        "penalty": test_the_discriminator_pays_the_penalty_with_its_weight,
        "penalty_weight": test_the_discriminator_pays_the_penalty_with_its_weight,
        "flip_probability": test_so_many_real_labels_are_wrong_as_the_settings_say_and_no_fake_ones,
        "real_target": test_so_many_real_labels_are_wrong_as_the_settings_say_and_no_fake_ones,
        "instance_noise_std": test_instance_noise_falls_to_nothing_and_both_players_look_through_it,
        "spectral_norm": test_spectral_norm_holds_the_largest_singular_value_of_each_layer_at_1,
        "unrolled_steps": test_an_unrolled_generator_looks_ahead_as_far_and_as_fast_as_the_settings_say,
        "unrolled_rate": test_an_unrolled_generator_looks_ahead_as_far_and_as_fast_as_the_settings_say,
    }
    names = {field.name for field in dataclasses.fields(toy_gan.ToyGAN)}
    assert SHOWN.keys() | by_a_test_of_its_own.keys() == names
    assert UNUSUAL.keys() == SHOWN.keys()
    for name, value in UNUSUAL.items():
        assert all(getattr(recipes.settings("toy_gan", scale=scale), name) != value for scale in ("quick", "full")), (
            name
        )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"penalty": "r1"}, "penalty='r1' and penalty_weight=0 contradict each other: a penalty needs a weight"),
        ({"penalty_weight": 2.0}, "penalty=None and penalty_weight=2 contradict"),
        ({"unrolled_steps": 5}, "unrolled_steps=5 and unrolled_rate=0 contradict each other: unrolled steps need"),
        ({"unrolled_rate": 0.1}, "unrolled_steps=0 and unrolled_rate=0.1 contradict"),
        ({"flip_probability": 0.1, "real_target": 0.9}, "flip_probability=0.1 and real_target=0.9 are the same remedy"),
        ({"game": "hinge", "real_target": 0.9}, "game='hinge' has no labels to flip or to smooth: use minimax"),
        ({"game": "relativistic", "flip_probability": 0.1}, "game='relativistic' has no labels"),
        (
            {"unrolled_steps": 1, "unrolled_rate": 0.1, "penalty": "r1", "penalty_weight": 1.0},
            "unrolled_steps=1 look ahead without the penalty",
        ),
        ({"unrolled_steps": 1, "unrolled_rate": 0.1, "spectral_norm": True}, "spectral_norm=True cannot go together"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        recipes.run("toy_gan", scale="quick", seed=0, out=tmp_path / "out", changes=changes)
    assert not (tmp_path / "out").exists()


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(runtime, "processes", lambda: 2)
    with pytest.raises(InputError, match="found 2 processes: .*use one"):
        toy_gan.prepare(recipes.settings("toy_gan", scale="quick"), seed=0)


SHORT = {"steps": 8, "checkpoint_steps": 3, "instance_noise_std": 1.0, "flip_probability": 0.3}


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_gan, "POINTS", FEW)
    whole = recipes.run("toy_gan", scale="quick", seed=1, out=tmp_path / "whole", changes=SHORT)
    step, calls = toy_gan.discriminator_step, iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(toy_gan, "discriminator_step", lambda *a, **how: step(*a, **how) if next(calls) < 5 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recipes.run("toy_gan", scale="quick", seed=1, out=tmp_path / "cut", changes=SHORT)
    again = recipes.run("toy_gan", scale="quick", seed=1, out=tmp_path / "cut", resume=True, changes=SHORT)
    assert again["resumed_from_step"] == 3
    assert again["sha256"] == whole["sha256"] and again["metrics"] == whole["metrics"]
    assert again["history"] == whole["history"]


def test_another_seed_gives_another_run(monkeypatch):
    monkeypatch.setattr(toy_gan, "POINTS", FEW)
    one, other = (recipes.run("toy_gan", scale="quick", seed=seed, changes=SHORT)["history"] for seed in (0, 1))
    assert one != other


def test_a_run_leaves_pictures_and_its_metrics_are_measured_again_from_its_weights(seen, monkeypatch):
    monkeypatch.setattr(toy_gan, "POINTS", FEW)
    assert {path.name for path in seen.out.iterdir()} >= {"curve.png", "generator.safetensors", "samples"}
    assert pretrained.evaluate(seen.out) == seen.record["metrics"]
    assert seen.record["images"] == {"channels": 2, "side_px": 1, "classes": 25}
    assert toy_gan.measure(seen.settings, toy_gan.prepare(seen.settings, seed=0), {}) == {}


class Oracle(nn.Module):
    """A generator that gives the latents back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, latent: Tensor) -> Tensor:
        return latent


def test_modes_covered_and_good_points_are_those_of_the_points_that_are_drawn(monkeypatch):
    settings = recipes.settings("toy_gan", scale="quick")
    prepared = toy_gan.prepare(settings, seed=0)
    ring = prepared.data
    points = ring.centres[0].repeat(toy_gan.POINTS, 1)
    points[:51], points[51:101], points[101:613] = ring.centres[1], ring.centres[2], 0.0
    monkeypatch.setattr(toy_gan, "fixed_latents", lambda *_, **__: points)
    found = toy_gan.measure(settings, prepared, {"generator": Oracle()})
    assert found["modes_covered"] == 2  # a tenth of a fair share is 51 points, one more than mode 2 has
    assert found["good_share"] == 0.875
    assert found["detective_accuracy"] > 0.95
    monkeypatch.setattr(toy_gan, "fixed_latents", lambda *_, **__: ring.sample(toy_gan.POINTS))
    found = toy_gan.measure(settings, prepared, {"generator": Oracle()})
    assert found["modes_covered"] == 8 and found["good_share"] > 0.98
    assert found["detective_accuracy"] == pytest.approx(0.5, abs=0.03)


def test_a_picture_is_bright_where_points_lie(monkeypatch):
    settings = recipes.settings("toy_gan", scale="quick")
    (edge,) = {round(1.5 * toy.ring().centres.abs().max().item(), 6)}
    points = torch.tensor([[0.0, 0.95 * edge], [0.0, 0.95 * edge], [0.95 * edge, 0.0], [9.0, 9.0]])
    monkeypatch.setattr(toy_gan, "fixed_latents", lambda count, *_: points.repeat(count // 4, 1))
    images = toy_gan.sample(settings, {"generator": Oracle()}, 3, seed=0)
    assert images.shape == (3, 1, 64, 64) and images.min() == -1 and images.max() == 1
    rows, columns = (images[0, 0] > -1).nonzero(as_tuple=True)
    assert rows.tolist() == [1, 31] or rows.tolist() == [1, 32]  # upwards is upwards
    assert columns.tolist() == [32, 62] and images[0, 0, 1, 32] == 1
    with pytest.raises(InputError, match="nothing here can draw: it holds discriminator, and no generator"):
        toy_gan.sample(settings, {"discriminator": Discriminator()}, 1, seed=0)


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_the_recipe_is_a_plain_gan(scale):
    settings = recipes.settings("toy_gan", scale=scale)
    fields = dataclasses.fields(settings)
    changed = {one.name for one in fields if one.default is not dataclasses.MISSING and
               getattr(settings, one.name) != one.default}  # fmt: skip
    assert not changed and settings.generator_rate == settings.discriminator_rate


def test_pictures_on_the_way_can_be_shown_and_change_nothing(monkeypatch):
    monkeypatch.setattr(toy_gan, "POINTS", FEW)
    settings = recipes.settings("toy_gan", scale="quick", steps=5, sample_steps=2)
    prepared, shown = toy_gan.prepare(settings, seed=0), []
    watched = toy_gan.train(settings, prepared, seed=0, show=lambda *picture: shown.append(picture))
    assert [step for step, _ in shown] == [0, 2, 4, 5] and shown[0][1].shape == (1, 1, 64, 64)
    assert watched.metrics == toy_gan.train(settings, prepared, seed=0).metrics
