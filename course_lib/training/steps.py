"""One update per family of models, each on one screen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from course_lib.losses.semi_supervised import feature_matching_loss, semi_supervised_discriminator_loss

Backward = Callable[[Tensor], None]


@dataclass
class Players:
    """The two networks of a GAN and what updates them."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network without computing those of its own weights, which nobody would use."""
    # Under DistributedDataParallel a pass that yields no weight gradients must not wait for them to be exchanged.
    with network.no_sync() if hasattr(network, "no_sync") else nullcontext():
        network.requires_grad_(False)
        try:
            yield
        finally:
            network.requires_grad_(True)


def supervised_step(
    classifier: nn.Module,
    optimizer: Optimizer,
    images: Float[Tensor, "batch channels height width"],
    labels: Int[Tensor, " batch"],
    *,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update a classifier on one labelled batch; return its cross-entropy in nats."""
    optimizer.zero_grad()
    loss = cross_entropy(classifier(images).logits, labels)
    backward(loss)
    optimizer.step()
    return {"class_loss": loss.detach()}


def semi_supervised_step(
    players: Players,
    labelled: Float[Tensor, "labelled channels height width"],
    labels: Int[Tensor, " labelled"],
    unlabelled: Float[Tensor, "unlabelled channels height width"],
    latent: Float[Tensor, "fake latent_dim"],
    *,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update the discriminator, then the generator, on one batch.

    Returns the discriminator's losses in nats, the generator's in units of features.
    """
    sizes = [len(labelled), len(unlabelled), len(latent)]
    fake = players.generator(latent)

    # Discriminator: one pass over all three kinds of images.
    # `detach` keeps this gradient out of the generator.
    players.discriminator_optimizer.zero_grad()
    images = torch.cat([labelled, unlabelled, fake.detach()])
    logits, features = players.discriminator(images)
    of_labelled, of_unlabelled, of_fake = logits.split(sizes)
    loss = semi_supervised_discriminator_loss(of_labelled, labels, of_unlabelled, of_fake)
    backward(loss.classes + loss.real_or_fake)
    players.discriminator_optimizer.step()

    # Generator: the same fakes, seen by the discriminator just updated.
    # The real features are those of the pass above.
    players.generator_optimizer.zero_grad()
    real_features = features.split(sizes)[1].detach()
    with frozen(players.discriminator):
        fake_features = players.discriminator(fake).features
        generator_loss = feature_matching_loss(real_features, fake_features)
        backward(generator_loss)
    players.generator_optimizer.step()

    return {
        "class_loss": loss.classes.detach(),
        "real_or_fake_loss": loss.real_or_fake.detach(),
        "generator_loss": generator_loss.detach(),
    }
