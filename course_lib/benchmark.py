"""Our training step beside the usual way of writing it: which is faster, by how much, and what the gain is made of.

Usual means: torchvision's MNIST through a DataLoader with its best number of workers, float32, Adam as it comes,
torch's dropout, and the discriminator's gradients computed once more in the generator's step. It is written with
care otherwise: one batch of fakes serves both players, and no picture goes through a network that need not. Both
sides have the same networks, batches, losses and threads, and train the same thing: a test compares their weights.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as with_logits
from torch.nn.functional import cross_entropy
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import v2

from course_lib import recipes, runtime
from course_lib.data.batches import ShuffledIndices
from course_lib.data.images import ImageForm, data_root, load, to_unit_range
from course_lib.data.labels import choose_labelled
from course_lib.errors import InputError
from course_lib.evaluation.accuracy import accuracy
from course_lib.losses.semi_supervised import feature_matching_loss, real_logit
from course_lib.models.blocks import Dropout
from course_lib.recipes import dcgan, semi_supervised
from course_lib.recipes.players import settled
from course_lib.training.samples import fixed_latents
from course_lib.training.steps import Backward, Players, adversarial_step, frozen, semi_supervised_step

CASES = {"dcgan": (28, 64), "ssgan": (28,)}  # the sides in pixels that each is measured at
SECONDS_A_TURN = 1.5  # how long the usual way computes in a round
WORKERS = (0, 1, 2, 4)
LABELS = 1000
WARM_UP = 2
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Way:
    """One way to write a training step.

    Args:
        ours: the course's own step; else the usual one, with what else is chosen here.
        in_memory: batches are gathered from one tensor of bytes; else they come from a DataLoader.
        fused: Adam in one loop over all weights.
        frozen: the generator's step computes no gradients of the discriminator's weights.
        cheap_dropout: the mask is drawn from uniform numbers.
        fakes_twice: a second batch of fakes is drawn for the generator's step.
    """

    name: str
    ours: bool = False
    in_memory: bool = False
    fused: bool = False
    frozen: bool = False
    cheap_dropout: bool = False
    channels_last: bool = False
    bfloat16: bool = False
    compiled: bool = False
    fakes_twice: bool = False


USUAL = Way("as usually written")


def ways(name: str, *, bfloat16: bool, compiled: bool) -> list[Way]:
    """Return what is raced: the usual way, each change on top of those before it, and the course's step.

    Last come two that are no part of it: a second batch of fakes in the usual way, and our step compiled.
    """
    changes = [
        ("+ pictures in memory", {"in_memory": True}),
        ("+ fused optimiser", {"fused": True}),
        ("+ D frozen in G's step", {"frozen": True}),
        ("+ cheaper dropout mask", {"cheap_dropout": True}),
        ("+ channels_last", {"channels_last": True}),
        ("+ bfloat16", {"bfloat16": True}),
    ]
    found = [USUAL]
    for row, change in changes:
        wanted = {"cheap_dropout": name == "ssgan", "bfloat16": bfloat16}
        if wanted.get(next(iter(change)), True):
            found.append(replace(found[-1], name=row, **change))
    ours = replace(found[-1], name="the course's step", ours=True)
    found.append(ours)
    if name == "dcgan":
        found.append(replace(USUAL, name="(usual, fakes drawn twice)", fakes_twice=True))
    if compiled:
        found.append(replace(ours, name="(the course's step, compiled)", compiled=True))
    return found


# ── The usual steps ───────────────────────────────────────────────────────────────────────────────────────────────


def usual_gan_step(
    players: Players,
    real: Tensor,
    latent: Tensor,
    *,
    freeze: bool = False,
    other_latent: Tensor | None = None,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Make the update of `adversarial_step` as it is usually written.

    Source: the plan of PyTorch's own example, github.com/pytorch/examples, dcgan/main.py.
    """
    ones, zeros = torch.ones(len(real), device=real.device), torch.zeros(len(real), device=real.device)
    players.discriminator_optimizer.zero_grad()
    of_real = with_logits(players.discriminator(real), ones)
    backward(of_real)
    fake = players.generator(latent)
    of_fake = with_logits(players.discriminator(fake.detach()), zeros)
    backward(of_fake)
    players.discriminator_optimizer.step()

    players.generator_optimizer.zero_grad()
    if other_latent is not None:
        fake = players.generator(other_latent)
    with frozen(players.discriminator) if freeze else nullcontext():
        of_generator = with_logits(players.discriminator(fake), ones)
        backward(of_generator)
    players.generator_optimizer.step()
    return {"discriminator_loss": (of_real + of_fake).detach(), "generator_loss": of_generator.detach()}


def usual_ssgan_step(
    players: Players,
    labelled: Tensor,
    labels: Tensor,
    unlabelled: Tensor,
    latent: Tensor,
    *,
    freeze: bool = False,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Make the update of `semi_supervised_step` as it is usually written: one pass for each kind of pictures."""
    players.discriminator_optimizer.zero_grad()
    class_loss = cross_entropy(players.discriminator(labelled).logits, labels)
    of_unlabelled = players.discriminator(unlabelled)
    fake = players.generator(latent)
    of_fake = players.discriminator(fake.detach())
    real, made_up = real_logit(of_unlabelled.logits), real_logit(of_fake.logits)
    loss = (with_logits(real, torch.ones_like(real)) + with_logits(made_up, torch.zeros_like(made_up))) / 2
    backward(class_loss + loss)
    players.discriminator_optimizer.step()

    players.generator_optimizer.zero_grad()
    with frozen(players.discriminator) if freeze else nullcontext():
        features = players.discriminator(fake).features
        of_generator = feature_matching_loss(of_unlabelled.features.detach(), features)
        backward(of_generator)
    players.generator_optimizer.step()
    return {
        "class_loss": class_loss.detach(),
        "real_or_fake_loss": loss.detach(),
        "generator_loss": of_generator.detach(),
    }


# ── A contestant: networks, optimisers, and a step on given batches ───────────────────────────────────────────────


def settings_of(name: str, side_px: int) -> Any:
    """Return the settings of what is raced: the paper's DCGAN, or the recipe for the semi-supervised GAN on MNIST."""
    if name == "ssgan":
        return recipes.settings("ssgan", scale="full", augmentation=None, augment_unlabelled=False)
    return dcgan.Settings(
        data="mnist",
        side_px=side_px,
        epochs=1,
        batch=64,
        generator_rate=2e-4,
        discriminator_rate=2e-4,
        average=0.0,
        checkpoint_steps=1,
        sample_steps=1,
        precision="auto",
        threads=None,
    )


class Contestant(NamedTuple):
    """The players of a way, and its step, which takes real pictures (and labels) and then latents."""

    players: Players
    step: Callable[..., dict[str, Tensor]]
    accelerator: Accelerator


def contestant(name: str, settings: Any, form: ImageForm, way: Way, *, seed: int = 0) -> Contestant:
    """Build the networks of a way, with the same first weights for all ways, and its step."""
    accelerator = runtime.start(seed, "bfloat16" if way.bfloat16 else "float32", settings.threads)
    family = {"dcgan": dcgan, "ssgan": semi_supervised}[name]
    networks = [family.NETWORKS[key](settings, form) for key in ("generator", "discriminator")]
    rates = [settings.learning_rate] * 2 if name == "ssgan" else [settings.generator_rate, settings.discriminator_rate]
    betas = (settings.beta1, settings.beta2)
    for network in networks:
        if not way.cheap_dropout:
            _with_torch_dropout(network)
        if way.channels_last:
            network.to(memory_format=torch.channels_last)
    fused = {"fused": True} if way.fused else {}
    optimizers = [
        Adam(each.parameters(), lr=rate, betas=betas, **fused) for each, rate in zip(networks, rates, strict=True)
    ]
    players = Players(*accelerator.prepare(*networks, *optimizers))
    if way.compiled:
        players.generator.compile()
        players.discriminator.compile()
    return Contestant(players, _step(name, way, accelerator.backward), accelerator)


def _step(name: str, way: Way, backward: Backward) -> Callable[..., dict[str, Tensor]]:
    if way.ours:
        ours = {"dcgan": adversarial_step, "ssgan": semi_supervised_step}[name]
        return lambda players, *batch: ours(players, *batch, backward=backward)
    if name == "ssgan":
        return lambda players, *batch: usual_ssgan_step(players, *batch, freeze=way.frozen, backward=backward)

    def step(players: Players, real: Tensor, latent: Tensor) -> dict[str, Tensor]:
        other = torch.randn_like(latent) if way.fakes_twice else None
        return usual_gan_step(players, real, latent, freeze=way.frozen, other_latent=other, backward=backward)

    return step


def _with_torch_dropout(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Dropout):
                setattr(parent, name, nn.Dropout(layer.probability))


# ── Where batches come from ───────────────────────────────────────────────────────────────────────────────────────


class Source(NamedTuple):
    """The same pictures for both sides: as a torchvision data set, and in memory."""

    told: str
    dataset: Dataset
    pixels: Tensor
    labels: Tensor
    form: ImageForm


class _Drawn(Dataset):
    """Pictures in memory, handed out one by one as torchvision's MNIST does."""

    def __init__(self, pixels: Tensor, labels: Tensor, transform: v2.Transform) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(v2.functional.to_pil_image(self.pixels[index])), int(self.labels[index])


def source(side_px: int) -> Source:
    """Return MNIST where it is, resized if need be; elsewhere scikit-learn's digits, enlarged to 28 px first."""
    resize = [v2.Resize(side_px)] if side_px != 28 else []
    tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
    transform = v2.Compose([*resize, *tensor])
    try:
        dataset: Dataset = MNIST(data_root(), train=True, transform=transform)
        data = load("mnist", side_px=side_px)
        told = f"MNIST, {side_px} px"
    except RuntimeError:  # torchvision's word for files that are not there; nothing is downloaded for a race
        small = load("digits", side_px=28)
        dataset = _Drawn(small.train_images, small.train_labels, transform)
        data = load("digits", side_px=side_px)
        told = f"scikit-learn's digits enlarged to {side_px} px, for MNIST is not there"
    return Source(told, dataset, data.train_images, data.train_labels, data.form)


def _batches(name: str, settings: Any, found: Source, way: Way, workers: int, seed: int) -> Iterator[Batch]:
    """Yield real pictures, and labelled ones before them where there are some; the last of a batch are the latents."""
    device, everything = runtime.device(), torch.arange(len(found.labels))
    parts = [(everything, settings.batch if name == "dcgan" else settings.unlabelled_batch)]
    if name == "ssgan":
        kept = min(LABELS, len(everything) // 2 // 10 * 10)
        labelled = choose_labelled(found.labels, kept, classes=found.form.classes, seed=0).nonzero().squeeze(1)
        parts.insert(0, (labelled, settings.labelled_batch))
    streams = [
        _gathered(found, indices, size, seed + place) if way.in_memory else _loaded(found, indices, size, workers)
        for place, (indices, size) in enumerate(parts)
    ]
    while True:
        pairs = [next(stream) for stream in streams]
        real = pairs[-1][0].to(device)
        before = [one.to(device) for one in pairs[0]] if name == "ssgan" else []
        latent = torch.randn(len(real), settings.latent_dim, device=device)
        yield (*before, real, latent)


def _gathered(found: Source, indices: Tensor, size: int, seed: int) -> Iterator[Batch]:
    order, pixels, labels = ShuffledIndices(len(indices), seed=seed), found.pixels[indices], found.labels[indices]
    number = 0
    while True:
        chosen = order.batch(number, size)
        yield to_unit_range(pixels[chosen]), labels[chosen]
        number += 1


def _loaded(found: Source, indices: Tensor, size: int, workers: int) -> Iterator[Batch]:
    subset = Subset(found.dataset, indices.tolist())
    loader = DataLoader(
        subset, batch_size=size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        yield from loader


# ── The race ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Row:
    """How fast one way was: pictures a second and their spread over the rounds, and times the usual way.

    The ratio is the median of those of the rounds, each within its round; a machine that slows down slows down both.
    """

    side_px: int
    name: str
    images_per_second: float
    slowest: float
    fastest: float
    ratio: float
    ratio_lowest: float
    ratio_highest: float


@dataclass(frozen=True)
class Result:
    """What a race found, and on what."""

    benchmark: str
    ratio: float
    ratios: dict[str, float]
    data: list[str]
    workers: dict[str, int]
    rounds: int
    bfloat16: bool
    environment: dict[str, Any]
    rows: list[Row]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield the result as a table for people."""
        for told, (side_px, ratio) in zip(self.data, self.ratios.items(), strict=True):
            yield f"{told}; {self.workers[side_px]} workers load it for the usual way; {self.rounds} rounds"
            yield f"{'':32}{'images/s':>10}{'lowest-highest':>18}{'times usual':>13}{'lowest-highest':>18}"
            for row in (row for row in self.rows if str(row.side_px) == side_px):
                spread = f"{row.slowest:.0f}-{row.fastest:.0f}"
                ratios = f"{row.ratio_lowest:.2f}-{row.ratio_highest:.2f}"
                yield f"{row.name:32}{row.images_per_second:10.0f}{spread:>18}{row.ratio:13.2f}{ratios:>18}"
            yield f"ratio at {side_px} px: {ratio:.2f}"
        if not self.bfloat16:
            yield "this processor has no bfloat16 instructions: the course's step stays with float32"


def race(name: str, *, rounds: int = 7, compiled: bool = False) -> Result:
    """Race the course's step against the usual one.

    All ways take turns in every round, in another order each time, so that whatever else the machine does meets all.

    Raises:
        InputError: there is no such benchmark, or `rounds` is below 1.
    """
    if name not in CASES:
        raise InputError(f"benchmark {name!r} is unknown: use {', '.join(CASES)}")
    if not 1 <= rounds <= 1000:
        raise InputError(f"rounds={rounds} cannot be: use 1 to 1,000")
    native, rows, told, best_workers = runtime.bfloat16_is_native(), [], [], {}
    for side_px in CASES[name]:
        found = source(side_px)
        told.append(found.told)
        settings = settings_of(name, side_px)
        entries = ways(name, bfloat16=native, compiled=compiled)
        workers, steps = _best_workers(name, settings, found)
        best_workers[str(side_px)] = workers
        turns = [_turn(name, settings, found, way, workers) for way in entries]
        for turn in turns:
            turn(WARM_UP)
        speeds: list[list[float]] = [[] for _ in entries]
        for number in range(rounds):
            for place in range(len(entries)):
                at = (place + number) % len(entries)
                speeds[at].append(turns[at](steps))
        rows += [_row(side_px, way, found, speeds[0]) for way, found in zip(entries, speeds, strict=True)]
    ours = {str(row.side_px): row.ratio for row in rows if row.name == "the course's step"}
    environment = runtime.describe() | {"torch": torch.__version__}
    return Result(name, ours["28"], ours, told, best_workers, rounds, native, environment, rows)


def _turn(name: str, settings: Any, found: Source, way: Way, workers: int) -> Callable[[int], float]:
    """Return a function that makes so many steps and returns the pictures a second."""
    one = contestant(name, settings, found.form, way)
    batches = _batches(name, settings, found, way, workers, seed=0)
    pictures = settings.batch if name == "dcgan" else settings.labelled_batch + settings.unlabelled_batch

    def turn(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            losses = one.step(one.players, *next(batches))
        losses["generator_loss"].item()  # a GPU has not finished before
        return steps * pictures / (time.perf_counter() - started)

    return turn


def _best_workers(name: str, settings: Any, found: Source) -> tuple[int, int]:
    """Return with how many workers the usual way is fastest, and how many of its steps take SECONDS_A_TURN."""
    speeds = {}
    for workers in (each for each in WORKERS if each <= runtime.ALL_THREADS):
        turn = _turn(name, settings, found, USUAL, workers)
        turn(WARM_UP)
        speeds[workers] = max(turn(3) for _ in range(2))
    best = max(speeds, key=lambda workers: speeds[workers])
    pictures = settings.batch if name == "dcgan" else settings.labelled_batch + settings.unlabelled_batch
    return best, max(2, round(SECONDS_A_TURN * speeds[best] / pictures))


def _row(side_px: int, way: Way, speeds: list[float], usual: list[float]) -> Row:
    ratios = [mine / theirs for mine, theirs in zip(speeds, usual, strict=True)]
    numbers = (statistics.median(speeds), min(speeds), max(speeds), statistics.median(ratios), min(ratios), max(ratios))
    return Row(side_px, way.name, *(round(number, 3) for number in numbers))


# ── Do both sides get equally far? ────────────────────────────────────────────────────────────────────────────────


def reached(name: str, *, images: int, seed: int = 0) -> dict[str, float]:
    """Train the usual way and the course's for so many real pictures at 28 px; return what each reached, by its name.

    That is the classifier Fréchet distance of a DCGAN's newest weights, and the test accuracy of a semi-supervised
    GAN's.

    Raises:
        InputError: there is no such benchmark, or MNIST cannot be had: its judge knows no other pictures.
    """
    if name not in CASES:
        raise InputError(f"benchmark {name!r} is unknown: use {', '.join(CASES)}")
    settings, found, result = settings_of(name, 28), source(28), {}
    family = {"dcgan": dcgan, "ssgan": semi_supervised}[name]
    prepared = family.prepare(settings, seed=seed)
    entries = ways(name, bfloat16=runtime.bfloat16_is_native(), compiled=False)
    for way in (USUAL, next(way for way in entries if way.ours)):
        one = contestant(name, settings, found.form, way, seed=seed)
        batches = _batches(name, settings, found, way, 0, seed)
        size = settings.batch if name == "dcgan" else settings.unlabelled_batch
        for _ in range(images // size):
            one.step(one.players, *next(batches))
        trained = [
            one.accelerator.unwrap_model(network, keep_fp32_wrapper=False)
            for network in (one.players.generator, one.players.discriminator)
        ]
        if name == "dcgan":
            generator = settled(trained[0], (fixed_latents(2000, settings.latent_dim, 0),), settings.batch)
            result[way.name] = dcgan.measure(settings, prepared, {"generator": generator})["classifier_frechet"]
        else:
            test = to_unit_range(prepared.data.test_images)
            result[way.name] = accuracy(trained[1], test, prepared.data.test_labels)
    return result
