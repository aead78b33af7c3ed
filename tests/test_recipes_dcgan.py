import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from course_lib import pretrained, recipes, records
from course_lib.data import images
from course_lib.data.augment import DifferentiableAugmentation
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.judge import judge
from course_lib.losses.adversarial import GAMES
from course_lib.losses.gradient_penalty import gradient_penalty
from course_lib.models.blocks import Dropout
from course_lib.models.dcgan import Discriminator, Generator
from course_lib.recipes import dcgan, players, shared
from course_lib.training.fit import hold_then_fall
from course_lib.training.samples import fixed_latents

PICTURES = 60
# Each unlike what the recipes have. What changes a loss, or what the discriminator sees, has tests of its own.
UNUSUAL = {
    "data": "halves",
    "memory_limit_mb": 17.0,
    "epochs": 3,
    "batch": 13,
    "generator_rate": 4e-3,
    "discriminator_rate": 3e-3,
    "average": 0.6,
    "checkpoint_steps": 5,
    "sample_steps": 4,
    "threads": 2,
    "side_px": 12,
    "validation": 10,
    "latent_dim": 9,
    "generator_width": 5,
    "discriminator_width": 6,
    "discriminator_dropout": 0.3,
    "beta1": 0.4,
    "beta2": 0.9,
    "hold": 0.4,
}
STEPS = 3 * (50 // 13)


def halves() -> images.ImageData:
    """Pictures whose left halves are bright, and a test set that is not looked at."""
    digits = images.digits()
    pixels = digits.train_images[:PICTURES].clone()
    pixels[..., :4], pixels[..., 4:] = pixels[..., :4] // 4 + 180, pixels[..., 4:] // 4
    return dataclasses.replace(digits, name="halves", train_images=pixels, train_labels=digits.train_labels[:PICTURES])


class Given(NamedTuple):
    """What a step was given and what it returned."""

    real: Tensor
    latent: Tensor
    how: dict[str, Any]
    losses: dict[str, Tensor]


@dataclasses.dataclass
class Seen:
    """A finished run and what it was seen to do."""

    settings: dcgan.DCGAN
    out: Path
    record: records.Record
    networks: dict[str, nn.Module]
    given: list[Given] = dataclasses.field(default_factory=list)
    limits: list[float] = dataclasses.field(default_factory=list)
    judged: list[Tensor] = dataclasses.field(default_factory=list)
    updates: list[tuple[str, float, tuple[float, float], Tensor]] = dataclasses.field(default_factory=list)

    def rates(self, player: str) -> list[float]:
        return [rate for name, rate, *_ in self.updates if name == player]

    def layers(self, player: str, kind: Any) -> list[Any]:
        return [layer for layer in self.networks[player].modules() if isinstance(layer, kind)]


@pytest.fixture(scope="module")
def observe(tmp_path_factory):
    """A function that makes a whole run with some settings changed and watches it."""

    def make(seed: int = 3, scale: str = "quick", **changes: Any) -> Seen:
        out = tmp_path_factory.mktemp("seen") / "out"
        changes = {"data": "halves", "generator_width": 4, "discriminator_width": 4} | changes
        seen = Seen(recipes.settings("dcgan", scale=scale, **changes), out, {}, {})
        step = dcgan.adversarial_step
        sizes = {}

        def watch(players, real, latent, **how):
            sizes.setdefault(id(players.generator_optimizer.optimizer), "generator")
            sizes.setdefault(id(players.discriminator_optimizer.optimizer), "discriminator")
            losses = step(players, real, latent, **how)
            seen.given.append(Given(real.clone(), latent.clone(), how, losses))
            return losses

        def note_update(optimizer: Optimizer, *_: Any) -> None:
            (group,) = optimizer.param_groups
            weights = torch.cat([weight.detach().flatten() for weight in group["params"]])
            seen.updates.append((sizes[id(optimizer)], group["lr"], group["betas"], weights))

        def note_judged(network: nn.Module, given: Any, returned: Any) -> None:
            if isinstance(network, Discriminator) and network.training and torch.is_grad_enabled():
                seen.judged.append(given[0].detach())

        load = dcgan.load

        def note_limit(*named: Any, memory_limit_mb: float, **how: Any) -> images.ImageData:
            seen.limits.append(memory_limit_mb)
            return load(*named, **how)

        hooks = [register_optimizer_step_post_hook(note_update), register_module_forward_hook(note_judged)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(images.SOURCES, "halves", halves)
            patch.setattr(dcgan, "adversarial_step", watch)
            patch.setattr(dcgan, "load", note_limit)
            try:
                seen.record = recipes.run("dcgan", scale=scale, seed=seed, out=out, changes=changes)
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
    bright_left = all((one.real[..., :5].mean() > one.real[..., 7:].mean() + 0.5).item() for one in seen.given)
    return {"halves"} if bright_left else {"another"}


def validation_of(seen: Seen) -> set[int]:
    rows = {picture.numpy().tobytes() for one in seen.given for picture in one.real}
    return {PICTURES - len(rows)}


def hold_of(seen: Seen) -> set[float]:
    rates = seen.rates("generator")
    return {
        hold
        for hold in np.arange(0, 1.01, 0.1).round(1).tolist()
        if np.allclose(rates, [4e-3 * hold_then_fall(hold)(step / STEPS) for step in range(STEPS)])
    }


def average_of(seen: Seen) -> set[float]:
    """Return the decays with which the kept weights are an average of those after each update."""
    newest = [weights for name, *_, weights in seen.updates if name == "generator"]
    kept = torch.cat([weight.detach().flatten() for weight in seen.networks["generator"].parameters()])
    found = set()
    for decay in (0.0, 0.3, 0.6, 0.9):
        average = newest[0]
        for weights in newest[1:]:
            average = decay * average + (1 - decay) * weights
        found |= {decay} if torch.allclose(average, kept, atol=1e-5) else set()
    return found


def steps_between(paths: list[Path]) -> set[int]:
    return set(np.diff(sorted(int(path.stem.removeprefix("step-")) for path in paths))[:1].tolist())


# How a run shows the value of a setting: all values that can be read back from it.
SHOWN = {
    "data": data_of,
    "memory_limit_mb": lambda seen: set(seen.limits),
    "epochs": lambda seen: {len(seen.given) * 3 / STEPS},
    "batch": lambda seen: {len(one.real) for one in seen.given} | {len(one.latent) for one in seen.given},
    "generator_rate": lambda seen: {max(seen.rates("generator"))},
    "discriminator_rate": lambda seen: {max(seen.rates("discriminator"))},
    "average": average_of,
    "checkpoint_steps": lambda seen: {
        min(int(path.name.removeprefix("step-")) for path in (seen.out / "checkpoints" / "dcgan").iterdir())
    },
    "sample_steps": lambda seen: steps_between(list((seen.out / "samples").iterdir())),
    "threads": lambda seen: {seen.record["environment"]["threads"]},
    "side_px": lambda seen: {one.real.shape[-1] for one in seen.given},
    "validation": validation_of,
    "latent_dim": lambda seen: {one.latent.shape[1] for one in seen.given},
    "generator_width": lambda seen: {seen.layers("generator", nn.ConvTranspose2d)[-1].in_channels},
    "discriminator_width": lambda seen: {seen.layers("discriminator", nn.Conv2d)[0].out_channels},
    "discriminator_dropout": lambda seen: {layer.probability for layer in seen.layers("discriminator", Dropout)},
    "beta1": lambda seen: {betas[0] for _, _, betas, _ in seen.updates},
    "beta2": lambda seen: {betas[1] for _, _, betas, _ in seen.updates},
    "hold": hold_of,
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_setting_reaches_the_object_it_is_for(seen, name):
    assert SHOWN[name](seen) == {getattr(seen.settings, name)}


def test_every_step_has_its_own_pictures_and_latents(seen):
    assert len(seen.given) == STEPS
    assert len({row.numpy().tobytes() for one in seen.given for row in one.latent}) == 13 * STEPS
    latents = torch.cat([one.latent for one in seen.given])
    assert latents.mean().abs() < 0.2 and latents.std().item() == pytest.approx(1, abs=0.15)


def test_a_report_holds_losses_and_scores_and_their_names(seen):
    lines = seen.record["history"]["dcgan"]
    assert len(lines) == 3
    for line in lines:
        assert {"discriminator_loss", "generator_loss", "generator_score", "discriminator_score"} <= line.keys()
        assert 0 < line["generator_score"] < 1 and 0 < line["discriminator_score"] < 1


ONE_STEP = {"epochs": 1, "batch": 60, "generator_rate": 0.0, "discriminator_rate": 0.0, "discriminator_norm": "none"}


def losses_of(seen: Seen) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """Return real logits and fake logits of the networks, which no update has changed, the fakes, and the losses."""
    (one,) = seen.given
    generator, discriminator = seen.networks["generator"].train(), seen.networks["discriminator"]
    fake = generator(one.latent).detach()
    return discriminator(one.real), discriminator(fake), fake, {key: float(value) for key, value in one.losses.items()}


@pytest.mark.parametrize("game", GAMES)
def test_the_players_minimise_the_losses_of_their_game(observe, game):
    seen = observe(**ONE_STEP, game=game, real_target=1.0)
    real, fake, _, losses = losses_of(seen)
    assert losses["discriminator_loss"] == pytest.approx(GAMES[game].discriminator(real, fake).item(), abs=1e-5)
    of_generator = GAMES[game].generator(*([real, fake] if GAMES[game].paired else [fake]))
    assert losses["generator_loss"] == pytest.approx(of_generator.item(), abs=1e-5)
    assert ("generator_score" in seen.record["history"]["dcgan"][0]) is GAMES[game].probabilities


@pytest.mark.parametrize(
    "changes, share", [({"flip_probability": 0.35, "real_target": 1.0}, 0.35), ({"real_target": 0.6}, 0.4)]
)
def test_so_many_real_labels_are_wrong_as_the_settings_say_and_no_fake_ones(observe, changes, share):
    seen = observe(**ONE_STEP, **changes)
    loss = seen.given[0].how["game"].discriminator
    sure_of_real, sure_of_fake = torch.full((20_000,), 100.0), torch.full((20_000,), -100.0)
    assert loss(sure_of_real, sure_of_fake).item() == pytest.approx(100 * share, abs=1.5)
    assert loss(-sure_of_real, sure_of_fake).item() == pytest.approx(100 * (1 - share), abs=1.5)


@pytest.mark.parametrize("penalty", ["gradient_penalty", "r1", "r1_r2"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_discriminator_pays_the_penalty_with_its_weight(observe, penalty, precision):
    plain = observe(**ONE_STEP, precision=precision)
    paid = observe(**ONE_STEP, precision=precision, penalty=penalty, penalty_weight=70.0)
    difference = (paid.given[0].losses["discriminator_loss"] - plain.given[0].losses["discriminator_loss"]).item()
    real, (_, _, fake, _) = paid.given[0].real, losses_of(paid)
    network = paid.networks["discriminator"]
    if penalty == "gradient_penalty":  # at points drawn anew, between the two
        expected = gradient_penalty(network, real, fake, weight=70.0).item()
    else:
        expected = 35 * slope(network, real) + (35 * slope(network, fake) if penalty == "r1_r2" else 0)
    assert difference == pytest.approx(expected, rel=0.05)


def test_a_penalty_put_off_is_paid_so_many_times_as_much(observe):
    changes = ONE_STEP | {"epochs": 5, "penalty": "r1", "penalty_weight": 70.0, "real_target": 1.0}
    seen = observe(**changes, penalty_steps=3)
    assert [one.how["penalty"] is not None for one in seen.given] == [True, False, False, True, False]
    network = seen.networks["discriminator"]
    for one in seen.given[::3]:
        paid = one.how["penalty"](network, one.real, one.real).item()
        assert paid == pytest.approx(3 * 35 * slope(network, one.real), rel=1e-3)


def slope(network: nn.Module, pictures: Tensor) -> float:
    pictures = pictures.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(network(pictures).sum(), pictures)
    return slopes.square().sum((1, 2, 3)).mean().item()


@pytest.mark.parametrize("norm", players.NORMS)
def test_the_discriminators_norm_is_the_one_of_the_settings(observe, norm):
    seen = observe(**ONE_STEP | {"discriminator_norm": norm})
    assert bool(seen.layers("discriminator", nn.BatchNorm2d)) is (norm == "batch")
    normed = [hasattr(layer, "parametrizations") for layer in seen.layers("discriminator", nn.Conv2d | nn.Linear)]
    assert normed == [norm == "spectral"] * 3
    assert not any(hasattr(layer, "parametrizations") for layer in seen.layers("generator", nn.Linear))


@pytest.mark.parametrize("kernel, side_px", [(4, 8), (5, 12)])
def test_the_kernels_are_those_of_the_settings(observe, kernel, side_px):
    seen = observe(**ONE_STEP, kernel=kernel, side_px=side_px)
    layers = seen.layers("generator", nn.ConvTranspose2d) + seen.layers("discriminator", nn.Conv2d)
    assert {layer.kernel_size for layer in layers} == {(kernel, kernel)}


def test_about_half_of_the_real_pictures_are_mirrored_and_the_rest_is_as_it_was(observe):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.SOURCES, "halves", halves)
        known = {picture.numpy().tobytes(): picture for picture in to_unit_range(halves().train_images)}
    for mirror in (False, True):
        (one,) = observe(**ONE_STEP, mirror=mirror).given
        kept = [picture.contiguous().numpy().tobytes() in known for picture in one.real]
        turned = [picture.flip(2).contiguous().numpy().tobytes() in known for picture in one.real]
        assert all(a != b for a, b in zip(kept, turned, strict=True))
        assert (0.25 < np.mean(turned) < 0.75) if mirror else not any(turned)


def test_the_discriminator_sees_all_pictures_through_the_augmentation(observe):
    plain, changed = observe(**ONE_STEP), observe(**ONE_STEP, cutout=0.5)
    assert [len(batch) for batch in changed.judged] == [60, 60, 60]
    assert torch.equal(plain.judged[0], plain.given[0].real)
    for batch in changed.judged:  # real, fake, and the fake again for the generator
        assert ((batch == 0).sum((1, 2, 3)) >= 4).all()
    assert changed.settings.differentiable_augmentation == DifferentiableAugmentation(cutout=0.5)
    assert list(changed.networks["discriminator"].state_dict()) == list(plain.networks["discriminator"].state_dict())


@pytest.mark.parametrize("precision, kind", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_networks_compute_as_precisely_as_the_settings_say(observe, precision, kind):
    found = set()

    def note(layer: nn.Module, given: Any, returned: Tensor) -> None:
        if isinstance(layer, nn.Conv2d) and layer.training:
            found.add(returned.dtype)

    hook = register_module_forward_hook(note)
    try:
        seen = observe(**ONE_STEP, precision=precision)
    finally:
        hook.remove()
    assert found == {kind} and seen.record["environment"]["precision"] == precision


def test_every_setting_is_watched():
    """A new one needs a line in SHOWN, or a test of its own and a line here."""
    by_a_test_of_its_own = {
        "game": test_the_players_minimise_the_losses_of_their_game,
        "penalty": test_the_discriminator_pays_the_penalty_with_its_weight,
        "penalty_weight": test_the_discriminator_pays_the_penalty_with_its_weight,
        "penalty_steps": test_a_penalty_put_off_is_paid_so_many_times_as_much,
        "flip_probability": test_so_many_real_labels_are_wrong_as_the_settings_say_and_no_fake_ones,
        "real_target": test_so_many_real_labels_are_wrong_as_the_settings_say_and_no_fake_ones,
        "discriminator_norm": test_the_discriminators_norm_is_the_one_of_the_settings,
        "kernel": test_the_kernels_are_those_of_the_settings,
        "mirror": test_about_half_of_the_real_pictures_are_mirrored_and_the_rest_is_as_it_was,
        "differentiable_augmentation": test_the_discriminator_sees_all_pictures_through_the_augmentation,
        "precision": test_the_networks_compute_as_precisely_as_the_settings_say,
    }
    names = {field.name for field in dataclasses.fields(dcgan.DCGAN)}
    assert SHOWN.keys() | by_a_test_of_its_own.keys() == names
    assert UNUSUAL.keys() == SHOWN.keys()
    for name, value in UNUSUAL.items():
        for recipe in ("dcgan", "dcgan_flowers"):
            assert all(getattr(recipes.settings(recipe, scale=scale), name) != value for scale in ("quick", "full"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"penalty": "r1"}, "penalty='r1' and penalty_weight=0 contradict each other"),
        ({"penalty": "r1", "penalty_weight": 1.0}, "penalty='r1' and discriminator_norm='batch' cannot go together"),
        ({"penalty_steps": 4}, "penalty_steps=4 needs a penalty"),
        ({"flip_probability": 0.1}, "flip_probability=0.1 and real_target=0.9 are the same remedy"),
        ({"game": "hinge"}, "game='hinge' has no labels to flip or to smooth"),
        ({"side_px": 10}, "side_px=10 cannot be reached"),
        ({"kernel": 5}, "side_px=8 cannot be reached by doubling with kernels of 5 x 5"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        recipes.run("dcgan", scale="quick", seed=0, out=tmp_path / "out", changes=changes)
    assert not (tmp_path / "out").exists()


def test_the_kept_generator_has_the_statistics_of_what_its_own_weights_draw(seen):
    generator = seen.networks["generator"]
    latents = fixed_latents(players.SETTLING, 9, seed=0)
    hidden = generator.layers[:2](latents)  # (latents, maps, side, side): what the first batch norm sees
    norm = generator.layers[2]
    assert torch.allclose(norm.running_mean, hidden.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, hidden.var((0, 2, 3)), rtol=0.05, atol=1e-5)


SHORT = {"epochs": 1, "generator_width": 4, "discriminator_width": 4, "checkpoint_steps": 7}


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    changes = SHORT | {"mirror": True, "flip_probability": 0.3, "real_target": 1.0, "translation": 0.2}
    whole = recipes.run("dcgan", scale="quick", seed=1, out=tmp_path / "whole", changes=changes)
    step, calls = dcgan.adversarial_step, iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(dcgan, "adversarial_step", lambda *a, **how: step(*a, **how) if next(calls) < 11 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recipes.run("dcgan", scale="quick", seed=1, out=tmp_path / "cut", changes=changes)
    resumed = recipes.run("dcgan", scale="quick", seed=1, out=tmp_path / "cut", changes=changes, resume=True)
    assert resumed["resumed_from_step"] == 7 and resumed["sha256"] == whole["sha256"]
    assert resumed["history"] == whole["history"] and resumed["metrics"] == whole["metrics"]


def test_the_record_names_the_judge_and_a_shipped_generator_repeats_its_numbers(tmp_path, monkeypatch):
    record = recipes.run("dcgan", scale="quick", seed=1, out=tmp_path / "out", changes=SHORT)
    assert record["judged_by"] == {"classifier_digits": judge("digits").sha256}
    assert record["metrics"].keys() == {"classifier_frechet", "class_entropy_nats", *players.SCORES}
    assert 0 <= record["metrics"]["class_entropy_nats"] <= np.log(10) and record["metrics"]["classifier_frechet"] > 5
    found = pretrained.evaluate(tmp_path / "out")
    assert pretrained.misses(found, record) == []
    records.write(record | {"judged_by": {"classifier_digits": "0" * 64}}, tmp_path / "out")
    with pytest.raises(InputError, match="was judged by .*0000.* cannot be compared"):
        pretrained.evaluate(tmp_path / "out")


def test_pictures_that_nobody_judges_have_no_distance(seen):
    assert seen.record["metrics"].keys() == set(players.SCORES) and "judged_by" not in seen.record


def test_a_judge_of_other_sizes_is_not_asked():
    settings = recipes.settings("dcgan", scale="quick", side_px=16)
    assert dcgan.prepare(settings, seed=0).judge is None


def test_samples_are_drawn_by_the_generator_from_the_seed_alone(seen, monkeypatch):
    drawn = dcgan.sample(seen.settings, seen.networks, 7, seed=4)
    assert drawn.shape == (7, 1, 12, 12) and drawn.abs().max() <= 1
    monkeypatch.setattr(shared, "AT_ONCE", 3)
    assert torch.allclose(dcgan.sample(seen.settings, seen.networks, 7, seed=4), drawn, atol=1e-5)
    assert not torch.allclose(dcgan.sample(seen.settings, seen.networks, 7, seed=5), drawn, atol=1e-2)
    with pytest.raises(InputError, match="holds discriminator, and no generator"):
        dcgan.sample(seen.settings, {"discriminator": seen.networks["discriminator"]}, 1, seed=0)


def test_both_shipped_networks_have_the_forms_of_their_names(seen):
    assert {name: type(network) for name, network in seen.networks.items()} == {
        "generator": Generator,
        "discriminator": Discriminator,
    }


def test_the_flowers_recipe_is_the_one_of_mathworks():
    full = recipes.settings("dcgan_flowers", scale="full")
    networks = [build(full, images.ImageForm(3, 64, 5)) for build in dcgan.NETWORKS.values()]
    assert [sum(one.numel() for one in network.parameters()) for network in networks] == [5_134_339, 4_316_545]
    expected = {
        "epochs": 500,
        "batch": 128,
        "generator_rate": 2e-4,
        "discriminator_rate": 2e-4,
        "beta1": 0.5,
        "beta2": 0.999,
        "flip_probability": 0.35,
        "discriminator_dropout": 0.5,
        "mirror": True,
        "side_px": 64,
        "sample_steps": 100,
        "hold": 1.0,
        "average": 0.0,
    }
    assert {name: getattr(full, name) for name in expected} == expected and players.SAMPLES == 25


def test_show_gets_the_pictures_in_place_of_the_folder():
    shown: list[tuple[int, Tensor]] = []
    settings = recipes.settings("dcgan", scale="quick", **SHORT, sample_steps=10)
    show: Callable[[int, Tensor], None] = lambda step, pictures: shown.append((step, pictures))  # noqa: E731
    dcgan.train(settings, dcgan.prepare(settings, seed=0), seed=0, show=show)
    assert [step for step, _ in shown] == [0, 10, 20] and all(one.shape == (25, 1, 8, 8) for _, one in shown)


TRAIN_ON_A_FOLDER = """
import sys
from pathlib import Path

from course_lib import recipes
from course_lib.recipes import dcgan, players, shared


def anonymous_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1e3


most, step = [0.0], dcgan.adversarial_step


def watch(*given, **how):
    losses = step(*given, **how)
    most[0] = max(most[0], anonymous_mb())
    return losses


dcgan.adversarial_step = watch
changes = dict(data=f"folder:{sys.argv[1]}", side_px=256, memory_limit_mb=10.0, batch=8, epochs=1, latent_dim=8)
changes |= dict(generator_width=1, discriminator_width=1, sample_steps=10_000, average=0.0)
players.SETTLING = 16
recipes.run("dcgan", scale="quick", seed=0, changes=changes)
print(max(most[0], anonymous_mb()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, where Linux tells a process's memory")
def test_a_folder_twenty_times_larger_than_the_limit_takes_hardly_more_memory_than_a_small_one(tmp_path):
    used = {}
    for count in (20, 1020):  # of 256 x 256 x 3 bytes: 200 MB
        folder = tmp_path / f"pictures_{count}"
        folder.mkdir()
        for number in range(count):
            content = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(content).save(folder / f"{number}.png")
        found = subprocess.run(
            [sys.executable, "-c", TRAIN_ON_A_FOLDER, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        )
        used[count] = float(found.stdout.split()[-1])
    assert used[1020] - used[20] < 100
