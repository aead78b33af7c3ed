"""DCGAN on any pictures: the data sets of the course, or a folder of one's own."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam
from torch.optim.swa_utils import update_bn

from course_lib import plotting, runtime
from course_lib.data.augment import DifferentiableAugmentation, mirrored_at_random
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageData, ImageForm, load, to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.scores import player_scores
from course_lib.losses.adversarial import GAMES, Game
from course_lib.models.blocks import Augmented
from course_lib.models.dcgan import KERNELS, Discriminator, Generator
from course_lib.recipes import shared
from course_lib.recipes.game import PENALTIES, contradictions, game_of, penalty_of, refuse
from course_lib.recipes.run_folder import RunFolder
from course_lib.recipes.settings import CHECKED
from course_lib.training.average import RunningAverage
from course_lib.training.fit import Training, hold_then_fall
from course_lib.training.samples import drawing, fixed_latents
from course_lib.training.steps import Backward, Penalty, Players, adversarial_step

SAMPLES = 25  # pictures that are drawn on the way, always from the same latents
SETTLING = 2000  # latents that batch norm's statistics are taken from, once a generator is averaged
REPORTS = 20
SCORES = ("generator_score", "discriminator_score")
NORMS = ("batch", "spectral", "none")


@checked_dataclass(frozen=True, kw_only=True, config=CHECKED)
class DCGAN:
    """The settings of a DCGAN. Each remedy is off where its setting is 0, 1 (`real_target`), false or not given.

    The learning rates are constant for the part `hold` of the training and then fall to 0.
    """

    data: Annotated[str, Field(description="name of the data set, or folder:PATH for pictures of your own")]
    epochs: Annotated[int, Field(ge=1, le=100_000, description="how often the pictures are seen")]
    batch: Annotated[int, Field(ge=2, le=10_000, description="pictures of either kind in an update")]
    generator_rate: Annotated[float, Field(ge=0, le=1, description="learning rate of Adam, for the generator")]
    discriminator_rate: Annotated[float, Field(ge=0, le=1, description="learning rate of Adam, for the discriminator")]
    average: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights that is kept")]
    checkpoint_steps: Annotated[int, Field(ge=1, description="updates between two checkpoints")]
    sample_steps: Annotated[int, Field(ge=1, description="updates between two pictures of what the generator draws")]
    precision: Annotated[runtime.Precision, Field(description="auto: bfloat16 where the hardware has it, else float32")]
    threads: Annotated[int | None, Field(ge=1, le=1024, description="CPU threads; not given: as many as there are")]
    side_px: Annotated[int | None, Field(ge=1, description="resize the pictures to so many pixels a side")] = None
    validation: Annotated[
        int, Field(ge=0, description="measure on so many training pictures set aside, not on the test pictures")
    ] = 0
    memory_limit_mb: Annotated[
        float, Field(ge=0, description="pictures of a folder that take more million bytes stay in a file")
    ] = 1000.0
    latent_dim: Annotated[int, Field(ge=1, le=10_000, description="numbers in a latent vector")] = 100
    kernel: Annotated[Literal[*KERNELS], Field(description="side of the kernels: 4 as DCGAN's, 5 as MathWorks'")] = 4
    generator_width: Annotated[int, Field(ge=1, le=1024, description="the generator's maps at half of the side")] = 64
    discriminator_width: Annotated[
        int, Field(ge=1, le=1024, description="the discriminator's maps at half of the side")
    ] = 64
    discriminator_norm: Annotated[
        Literal[*NORMS], Field(description="what keeps the discriminator's layers in bounds: batch or spectral norm")
    ] = "batch"
    discriminator_dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of the pixels dropped from what the discriminator sees")
    ] = 0.0
    mirror: Annotated[bool, Field(description="mirror half of the real pictures, left to right")] = False
    differentiable_augmentation: Annotated[
        DifferentiableAugmentation | None, Field(description="let the discriminator see all pictures unchanged")
    ] = None
    game: Annotated[Literal[*GAMES], Field(description="what the two players minimise")] = "non_saturating"
    penalty: Annotated[
        Literal[*PENALTIES] | None, Field(description="on the discriminator's slope; it needs a penalty weight")
    ] = None
    penalty_weight: Annotated[float, Field(ge=0, description="of the penalty: its lambda, or its gamma")] = 0.0
    penalty_steps: Annotated[
        int, Field(ge=1, le=1000, description="pay the penalty only in every so many-th update, so many times as much")
    ] = 1
    flip_probability: Annotated[
        float, Field(ge=0, le=1, description='share of real pictures that are called "fake"')
    ] = 0.0
    real_target: Annotated[
        float, Field(ge=0, le=1, description="what the discriminator shall say of real pictures")
    ] = 1.0
    beta1: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean gradient")] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1, description="Adam's decay of the mean squared gradient")] = 0.999
    hold: Annotated[float, Field(ge=0, le=1, description="part of the training with the full rate")] = 1.0


Settings = DCGAN


def _generator(settings: DCGAN, form: ImageForm) -> Generator:
    return Generator(
        channels=form.channels,
        side_px=form.side_px,
        latent_dim=settings.latent_dim,
        width=settings.generator_width,
        kernel=settings.kernel,
    )


def _discriminator(settings: DCGAN, form: ImageForm) -> Discriminator:
    network = Discriminator(
        channels=form.channels,
        side_px=form.side_px,
        width=settings.discriminator_width,
        kernel=settings.kernel,
        dropout=settings.discriminator_dropout,
        batch_norm=settings.discriminator_norm == "batch",
    )
    if settings.discriminator_norm == "spectral":
        for layer in network.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spectral_norm(layer)
    return network


NETWORKS: Mapping[str, Callable[[DCGAN, ImageForm], nn.Module]] = {
    "generator": _generator,
    "discriminator": _discriminator,
}


def prepare(settings: DCGAN, *, seed: int) -> shared.Judged:
    """Load the pictures.

    Raises:
        InputError: the data cannot be had, two settings contradict each other, or they do not fit the pictures.
    """
    penalised = f"penalty={settings.penalty!r} and discriminator_norm='batch' cannot go together: with batch norm no "
    penalised += "picture has a slope of its own; use spectral or none"
    normed = settings.penalty is not None and settings.discriminator_norm == "batch"
    seldom = f"penalty_steps={settings.penalty_steps} needs a penalty that it puts off: name one"
    refuse(
        contradictions(settings) | {penalised: normed, seldom: settings.penalty is None and settings.penalty_steps > 1}
    )
    shared.check_batch("batch", settings.batch)
    data = load(
        settings.data,
        side_px=settings.side_px,
        validation=settings.validation,
        memory_limit_mb=settings.memory_limit_mb,
    )
    for build in NETWORKS.values():
        build(settings, data.form)  # a network refuses a form that it cannot have
    return shared.judged(data)


def train(
    settings: DCGAN,
    prepared: shared.Judged,
    *,
    seed: int,
    folder: RunFolder | None = None,
    show: Callable[[int, Tensor], None] | None = None,
) -> shared.Outcome:
    """Train both players; save pictures that the generator draws, and the curve of the players' scores.

    The generator that is kept, drawn and measured is the running average, with batch norm's statistics taken anew.

    `show` gets the pictures on the way, in place of the folder, and the number of updates made.
    """
    accelerator = runtime.start(seed, settings.precision, settings.threads)
    generator, discriminator = (
        build(settings, prepared.data.form).to(memory_format=torch.channels_last) for build in NETWORKS.values()
    )
    # Copied before Accelerate makes the forward pass one of mixed precision.
    average = RunningAverage(generator, settings.average, runtime.device())
    seen = settings.differentiable_augmentation
    player = Augmented(discriminator, seen) if seen else discriminator
    bare = copy.copy(player)
    betas = (settings.beta1, settings.beta2)
    optimizers = [
        Adam(network.parameters(), lr=rate, betas=betas, fused=True)
        for network, rate in ((generator, settings.generator_rate), (player, settings.discriminator_rate))
    ]
    players = Players(*accelerator.prepare(generator, player, *optimizers))
    steps_per_epoch = max(1, len(prepared.data.train_images) // settings.batch)
    latents = fixed_latents(SAMPLES, settings.latent_dim, seed)
    scored = SCORES if GAMES[settings.game].probabilities else ()
    training = Training(
        name="dcgan",
        step=_step(settings, prepared.data, players, bare, seed=seed, backward=accelerator.backward),
        evaluate=lambda: measure(settings, prepared, {"generator": settled(average.network, settings)}),
        steps=settings.epochs * steps_per_epoch,
        report_steps=steps_per_epoch * max(1, settings.epochs // REPORTS),
        steps_per_epoch=steps_per_epoch,
        optimizers=[players.generator_optimizer, players.discriminator_optimizer],
        learning_rate=hold_then_fall(settings.hold),
        average=average,
        shown=dict.fromkeys(scored, ".2f"),
        draw=lambda: drawing(settled(average.network, settings), latents)(),
        draw_steps=settings.sample_steps,
    )
    fitted = shared.fit_in(folder, training, accelerator, settings.checkpoint_steps, show=show)
    if folder is not None and runtime.is_main_process() and scored:
        curves = {key.replace("_", " "): [line[key] for line in fitted.history] for key in scored}
        axes = plotting.accuracy_curves(curves)
        axes.set(xlabel=f"updates / {training.report_steps}", ylabel="score")
        folder.save_picture("curve", axes)
    networks = {"generator": settled(average.network, settings), "discriminator": discriminator.eval()}
    metrics = measure(settings, prepared, networks) | {key: fitted.history[-1][key] for key in scored}
    return shared.Outcome(networks, metrics, {"dcgan": fitted})


def settled(generator: nn.Module, settings: DCGAN) -> nn.Module:
    """Return a copy of an averaged generator with batch norm's statistics taken anew, in evaluation mode.

    An average over updates of a layer's statistics is not the statistics of the averaged layer: the layers before it
    changed, too. Once the weights are averaged, the statistics are taken from what these weights draw.

    Source: Brock et al. (2019), section 2.1 ("standing statistics").
    """
    network = copy.deepcopy(generator)
    latents = fixed_latents(SETTLING, settings.latent_dim, seed=0).to(next(network.parameters()).device)
    update_bn(latents.split(max(settings.batch, 2)), network)
    return network.eval()


def measure(settings: DCGAN, prepared: shared.Judged, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return what the judge of the data finds in as many pictures of the generator as there are test pictures.

    For its scores see `shared.Judged.scores`.
    """
    if prepared.judge is None or "generator" not in networks:
        return {}
    return prepared.scores(sample(settings, networks, len(prepared.data.test_images), seed=0))


def sample(
    settings: DCGAN, networks: Mapping[str, nn.Module], count: int, *, seed: int
) -> Float[Tensor, "count channels side side"]:
    """Draw pictures in [-1, 1] with the generator.

    Raises:
        InputError: there is none among these networks.
    """
    if "generator" not in networks:
        raise InputError(f"nothing here can draw: it holds {', '.join(networks)}, and no generator")
    latents = fixed_latents(count, settings.latent_dim, seed)
    return torch.cat([drawing(networks["generator"], some)() for some in latents.split(shared.AT_ONCE)])


def _step(
    settings: DCGAN, data: ImageData, players: Players, bare: nn.Module, *, seed: int, backward: Backward
) -> Callable[[int], dict[str, Tensor]]:
    game, scores = _watched(game_of(settings))
    penalty, device = _penalty(settings, bare), runtime.device()
    order = ShuffledIndices(len(data.train_images), seed=seed)
    pixels = data.train_images
    if pixels.nbytes <= settings.memory_limit_mb * 1e6:  # others stay in their file
        pixels = pixels.to(device)

    def update(number: int) -> dict[str, Tensor]:
        chosen = shared.own_part(order.batch(number, settings.batch))
        real = to_unit_range(pixels[chosen.to(pixels.device)].to(device))
        if settings.mirror:
            real = mirrored_at_random(real)
        latent = torch.randn(len(real), settings.latent_dim, device=device)
        due = penalty if number % settings.penalty_steps == 0 else None
        losses = adversarial_step(players, real, latent, game=game, penalty=due, backward=backward)
        return losses | scores

    return update


def _watched(game: Game) -> tuple[Game, dict[str, Tensor]]:
    """Return a game, and the players' scores in its last update, which it keeps up to date."""
    scores: dict[str, Tensor] = {}

    def discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        if game.probabilities:
            found = player_scores(real_logits.detach(), fake_logits.detach())
            scores.update(zip(SCORES, found, strict=True))
        return game.discriminator(real_logits, fake_logits)

    return replace(game, discriminator=discriminator), scores


def _penalty(settings: DCGAN, bare: nn.Module) -> Penalty | None:
    """Return the penalty of an update in which it is due, on the bare network: one of mixed precision is refused.

    A penalty that is paid seldom, and then so many times as much, has nearly the same effect and costs less: Karras et
    al. (2020), Analyzing and improving the image quality of StyleGAN, section 3.1, "lazy regularization".
    """
    penalty = penalty_of(settings)
    if penalty is None:
        return None
    return lambda _, real, fake: settings.penalty_steps * penalty(bare, real, fake)
