"""What recipes with two convolutional players share: all of a training but the update itself."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam
from torch.optim.swa_utils import update_bn

from course_lib import plotting, runtime
from course_lib.data.images import ImageData, ImageForm
from course_lib.errors import InputError
from course_lib.evaluation.scores import player_scores
from course_lib.losses.adversarial import GAMES, Game
from course_lib.models.blocks import Augmented
from course_lib.recipes import shared
from course_lib.recipes.game import contradictions, game_of, penalty_of, refuse
from course_lib.recipes.run_folder import RunFolder
from course_lib.training.average import RunningAverage
from course_lib.training.fit import Fitted, Training, hold_then_fall
from course_lib.training.samples import drawing
from course_lib.training.steps import Penalty, Players

SAMPLES = 25  # pictures that are drawn on the way, always from the same latents
SETTLING = 2000  # pictures that batch norm's statistics are taken from, once a generator is averaged
REPORTS = 20
SCORES = ("generator_score", "discriminator_score")
NORMS = ("batch", "spectral", "none")

# What a generator draws so many pictures from, by their number and a seed: latents, and conditions if it takes them.
Inputs = Callable[[int, int], tuple[Tensor, ...]]
Show = Callable[[int, Tensor], None]


@runtime_checkable
class GeneratorSettings(Protocol):
    """The settings of a training in which a generator is averaged."""

    epochs: int
    batch: int
    generator_rate: float
    average: float
    checkpoint_steps: int
    sample_steps: int
    beta1: float
    beta2: float
    hold: float


@runtime_checkable
class PlayerSettings(GeneratorSettings, Protocol):
    """The settings of two players."""

    precision: runtime.Precision
    threads: int | None
    discriminator_rate: float
    discriminator_norm: str
    game: str
    penalty: str | None
    penalty_weight: float
    penalty_steps: int
    flip_probability: float
    real_target: float


def check(settings: PlayerSettings) -> None:
    """Refuse settings of two players that contradict each other.

    Raises:
        InputError: with the first contradiction.
    """
    penalised = f"penalty={settings.penalty!r} and discriminator_norm='batch' cannot go together: with batch norm no "
    penalised += "picture has a slope of its own; use spectral or none"
    normed = settings.penalty is not None and settings.discriminator_norm == "batch"
    seldom = f"penalty_steps={settings.penalty_steps} needs a penalty that it puts off: name one"
    refuse(
        contradictions(settings) | {penalised: normed, seldom: settings.penalty is None and settings.penalty_steps > 1}
    )
    shared.check_batch("batch", settings.batch)


def with_spectral_norm(network: nn.Module) -> nn.Module:
    """Give spectral norm to all convolutions and dense layers of a network, and return it."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            spectral_norm(layer)
    return network


def train(
    name: str,
    settings: PlayerSettings,
    data: ImageData,
    networks: Mapping[str, Callable[[Any, ImageForm], nn.Module]],
    update: Callable[..., dict[str, Tensor]],
    *,
    seed: int,
    inputs: Inputs,
    measure: Callable[[nn.Module], dict[str, float]],
    augmentation: Callable[[Tensor], Tensor] | None = None,
    folder: RunFolder | None = None,
    show: Show | None = None,
) -> shared.Outcome:
    """Train both players; save pictures that the generator draws, and the curve of the players' scores.

    The generator that is kept, drawn and measured is the running average, with batch norm's statistics taken anew.

    Args:
        networks: how "generator" and "discriminator" are made.
        update: makes the update of a number; called as update(number, players, game=…, penalty=…, backward=…), it
            returns the losses.
        inputs: what is drawn from.
        measure: what a report holds of the generator beside losses and scores.
        augmentation: what the discriminator sees all pictures through.
        show: gets the pictures on the way, in place of the folder, and the number of updates made.
    """
    accelerator = runtime.start(seed, settings.precision, settings.threads)
    generator, discriminator = (
        networks[key](settings, data.form).to(memory_format=torch.channels_last)
        for key in ("generator", "discriminator")
    )
    # Copied before Accelerate makes the forward pass one of mixed precision.
    average = RunningAverage(generator, settings.average, runtime.device())
    player = Augmented(discriminator, augmentation) if augmentation else discriminator
    bare = copy.copy(player)
    optimizers = [
        adam(generator, settings, settings.generator_rate),
        adam(player, settings, settings.discriminator_rate),
    ]
    players = Players(*accelerator.prepare(generator, player, *optimizers))
    game, scores = _watched(game_of(settings))
    penalty = _penalty(settings, bare)

    def step(number: int) -> dict[str, Tensor]:
        due = penalty if number % settings.penalty_steps == 0 else None
        return update(number, players, game=game, penalty=due, backward=accelerator.backward) | scores

    fitted, kept = fit_generator(
        name,
        settings,
        data,
        average,
        step,
        accelerator,
        [players.generator_optimizer, players.discriminator_optimizer],
        inputs=inputs,
        measure=measure,
        shown=SCORES if GAMES[settings.game].probabilities else (),
        seed=seed,
        folder=folder,
        show=show,
    )
    scored = [key for key in SCORES if key in fitted.history[-1]]
    if folder is not None and runtime.is_main_process() and scored:
        curves = {key.replace("_", " "): [line[key] for line in fitted.history] for key in scored}
        axes = plotting.accuracy_curves(curves)
        axes.set(xlabel=f"updates / {fitted.history[0]['step']:.0f}", ylabel="score")
        folder.save_picture("curve", axes)
    metrics = measure(kept) | {key: fitted.history[-1][key] for key in scored}
    return shared.Outcome({"generator": kept, "discriminator": discriminator.eval()}, metrics, {name: fitted})


def fit_generator(
    name: str,
    settings: GeneratorSettings,
    data: ImageData,
    average: RunningAverage,
    step: Callable[[int], dict[str, Tensor]],
    accelerator: Accelerator,
    optimizers: list[Any],
    *,
    inputs: Inputs,
    measure: Callable[[nn.Module], dict[str, float]],
    seed: int,
    shown: tuple[str, ...] = (),
    folder: RunFolder | None = None,
    show: Show | None = None,
) -> tuple[Fitted, nn.Module]:
    """Make the updates of a training, and return what happened and the settled average of the generator.

    Args:
        step: makes the update of a number.
        shown: which values of a report the progress bar shows.
        inputs, measure, show: as for `train`.
    """
    steps_per_epoch = max(1, len(data.train_images) // settings.batch)
    drawn_from = inputs(SAMPLES, seed)

    def kept() -> nn.Module:
        return settled(average.network, inputs(SETTLING, 0), settings.batch)

    training = Training(
        name=name,
        step=step,
        evaluate=lambda: measure(kept()),
        steps=settings.epochs * steps_per_epoch,
        report_steps=steps_per_epoch * max(1, settings.epochs // REPORTS),
        steps_per_epoch=steps_per_epoch,
        optimizers=optimizers,
        learning_rate=hold_then_fall(settings.hold),
        average=average,
        shown=dict.fromkeys(shown, ".2f"),
        draw=lambda: drawing(kept(), *drawn_from)(),
        draw_steps=settings.sample_steps,
    )
    fitted = shared.fit_in(folder, training, accelerator, settings.checkpoint_steps, show=show)
    return fitted, kept()


def adam(network: nn.Module, settings: GeneratorSettings, rate: float) -> Adam:
    """Return the optimizer of a player."""
    return Adam(network.parameters(), lr=rate, betas=(settings.beta1, settings.beta2), fused=True)


def settled(generator: nn.Module, inputs: tuple[Tensor, ...], batch: int) -> nn.Module:
    """Return a copy of an averaged generator with batch norm's statistics taken anew, in evaluation mode.

    An average over updates of a layer's statistics is not the statistics of the averaged layer: the layers before it
    changed, too. Once the weights are averaged, the statistics are taken from what these weights draw.

    Source: Brock et al. (2019), appendix ("standing statistics").
    """
    network = copy.deepcopy(generator)
    device = next(network.parameters()).device
    batches = zip(*(one.to(device).split(max(batch, 2)) for one in inputs), strict=True)
    update_bn(([some] for some in batches), _OfOne(network))
    return network.eval()


class _OfOne(nn.Module):
    """A network that takes its inputs as one, as `update_bn` hands them over."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return self.network(*inputs)


def draw(
    networks: Mapping[str, nn.Module], *inputs: Tensor, by: str = "generator"
) -> Float[Tensor, "count channels side side"]:
    """Draw pictures in [-1, 1], some at a time.

    Raises:
        InputError: there is no generator among these networks.
    """
    if by not in networks:
        raise InputError(f"nothing here can draw: it holds {', '.join(networks)}, and no {by}")
    batches = zip(*(one.split(shared.AT_ONCE) for one in inputs), strict=True)
    return torch.cat([drawing(networks[by], *some)() for some in batches])


def _watched(game: Game) -> tuple[Game, dict[str, Tensor]]:
    """Return a game, and the players' scores in its last update, which it keeps up to date."""
    scores: dict[str, Tensor] = {}

    def discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        if game.probabilities:
            found = player_scores(real_logits.detach(), fake_logits.detach())
            scores.update(zip(SCORES, found, strict=True))
        return game.discriminator(real_logits, fake_logits)

    return replace(game, discriminator=discriminator), scores


def _penalty(settings: PlayerSettings, bare: nn.Module) -> Penalty | None:
    """Return the penalty of an update in which it is due, on the bare network: one of mixed precision is refused.

    A penalty that is paid seldom, and then so many times as much, has nearly the same effect and costs less: Karras et
    al. (2020), Analyzing and improving the image quality of StyleGAN, section 3.1, "lazy regularization".
    """
    penalty = penalty_of(settings)
    if penalty is None:
        return None
    return lambda _, real, fake, *told: settings.penalty_steps * penalty(bare, real, fake, *told)
