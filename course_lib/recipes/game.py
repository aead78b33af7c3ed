"""What a GAN's settings say about its game: the losses, the labels and the penalty."""

from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from course_lib.errors import InputError
from course_lib.losses import adversarial
from course_lib.losses.adversarial import GAMES, Game
from course_lib.losses.gradient_penalty import gradient_penalty, r1_penalty, r2_penalty
from course_lib.training.steps import Penalty

PENALTIES = ("gradient_penalty", "r1", "r1_r2")


@runtime_checkable
class GameSettings(Protocol):
    """The settings of a game."""

    game: str
    penalty: str | None
    penalty_weight: float
    flip_probability: float
    real_target: float


def game_of(settings: GameSettings) -> Game:
    """Return what the players minimise, with the labels flipped or smoothed as the settings say."""
    game = GAMES[settings.game]
    if settings.real_target < 1:
        smoothed = partial(adversarial.smoothed_discriminator_loss, real_target=settings.real_target)
        return replace(game, discriminator=smoothed)
    if settings.flip_probability > 0:

        def flipped(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
            chosen = torch.rand_like(real_logits) < settings.flip_probability
            return adversarial.flipped_discriminator_loss(real_logits, fake_logits, chosen)

        return replace(game, discriminator=flipped)
    return game


def penalty_of(settings: GameSettings) -> Penalty | None:
    """Return what is added to the discriminator's loss, if anything."""
    weight = settings.penalty_weight
    if settings.penalty == "gradient_penalty":
        return partial(gradient_penalty, weight=weight)
    if settings.penalty == "r1":
        return lambda discriminator, real, fake, *told: r1_penalty(discriminator, real, *told, gamma=weight)
    if settings.penalty == "r1_r2":
        return lambda discriminator, real, fake, *told: (
            r1_penalty(discriminator, real, *told, gamma=weight) + r2_penalty(discriminator, fake, *told, gamma=weight)
        )
    return None


def contradictions(settings: GameSettings) -> dict[str, bool]:
    """Return what may contradict itself in a game, as a sentence that says what to do, and whether it does."""
    labels_changed = settings.flip_probability > 0 or settings.real_target < 1
    return {
        f"penalty={settings.penalty!r} and penalty_weight={settings.penalty_weight:g} contradict each other: "
        "a penalty needs a weight above 0, and a weight needs a penalty": (
            (settings.penalty is None) != (settings.penalty_weight == 0)
        ),
        f"flip_probability={settings.flip_probability:g} and real_target={settings.real_target:g} are the same remedy "
        "twice: use one": settings.flip_probability > 0 and settings.real_target < 1,
        f"game={settings.game!r} has no labels to flip or to smooth: use minimax or non_saturating": (
            labels_changed and settings.game not in ("minimax", "non_saturating")
        ),
    }


def refuse(found: dict[str, bool]) -> None:
    """Refuse settings of which a contradiction was found.

    Raises:
        InputError: with the first one.
    """
    for reason, is_so in found.items():
        if is_so:
            raise InputError(reason)
