"""One update per family of models, each on one screen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, l1_loss, mse_loss
from torch.optim import Optimizer

from course_lib.losses.adversarial import NON_SATURATING, Game, generator_loss
from course_lib.losses.diffusion import NoiseSchedule, simple_loss
from course_lib.losses.semi_supervised import (
    feature_matching_loss,
    real_logit,
    semi_supervised_discriminator_loss,
)
from course_lib.losses.variational import negative_elbo

Backward = Callable[[Tensor], None]
Penalty = Callable[..., Tensor]
Reconstruction = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Players:
    """The two networks of a GAN and what updates them."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network without computing those of its own
    weights, which nobody would use.
    """
    trainable = [weight for weight in network.parameters() if weight.requires_grad]
    # Under DistributedDataParallel a pass that yields no weight gradients must not
    # wait for them to be exchanged.
    with network.no_sync() if hasattr(network, "no_sync") else nullcontext():
        network.requires_grad_(False)
        try:
            yield
        finally:
            for weight in trainable:
                weight.requires_grad_(True)


def supervised_step(
    classifier: nn.Module,
    optimizer: Optimizer,
    images: Float[Tensor, "batch channels height width"],
    labels: Int[Tensor, " batch"],
    *,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update a classifier on one labelled batch; return its loss in nats."""
    optimizer.zero_grad()
    loss = cross_entropy(classifier(images).logits, labels)
    backward(loss)
    optimizer.step()
    return {"class_loss": loss.detach()}


def regression_step(
    network: nn.Module,
    optimizer: Optimizer,
    latent: Float[Tensor, "batch latent_dim"],
    condition: Shaped[Tensor, "batch *given"],
    wanted: Float[Tensor, "batch *shape"],
    *,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update a conditional generator without a discriminator: it minimises the mean
    squared difference from what is wanted, and returns it.
    """
    optimizer.zero_grad()
    loss = mse_loss(network(latent, condition), wanted)
    backward(loss)
    optimizer.step()
    return {"regression_loss": loss.detach()}


def autoencoder_step(
    autoencoder: nn.Module,
    optimizer: Optimizer,
    inputs: Float[Tensor, "batch *shape"],
    targets: Float[Tensor, "batch *shape"],
    *,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update an autoencoder on one batch; return the mean squared error between
    what it makes of the inputs and the targets.

    The targets are the inputs themselves, or, for one that denoises, the clean
    images. With pixels in [-1, 1] the error is four times that on [0, 1].
    """
    optimizer.zero_grad()
    loss = mse_loss(autoencoder(inputs), targets)
    backward(loss)
    optimizer.step()
    return {"reconstruction_loss": loss.detach()}


def vae_step(
    vae: nn.Module,
    optimizer: Optimizer,
    images: Float[Tensor, "batch channels side side"],
    noise: Float[Tensor, "batch latent_dim"],
    *,
    beta: float = 1.0,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update a variational autoencoder on one batch of images with pixels -1 or 1.

    Args:
        noise: from N(0, I), one vector an image, to draw its latent vector with.
        beta: weight of the divergence.

    Returns the negative evidence lower bound, whose mean is minimised, and its two
    parts, as means over the images in nats.
    """
    optimizer.zero_grad()
    logits, mean, log_variance = vae(images, noise)
    loss = negative_elbo(logits, images, mean, log_variance, beta=beta)
    backward(loss.total_nats.mean())
    optimizer.step()
    return {
        "negative_elbo_nats": loss.total_nats.mean().detach(),
        "reconstruction_nats": loss.reconstruction_nats.mean().detach(),
        "kl_nats": loss.kl_nats.mean().detach(),
    }


def diffusion_step(
    denoiser: nn.Module,
    optimizer: Optimizer,
    images: Float[Tensor, "batch *shape"],
    noise: Float[Tensor, "batch *shape"],
    step: Int[Tensor, " batch"],
    schedule: NoiseSchedule,
    *,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update the network of a diffusion model on one batch; return its loss.

    Args:
        noise: from N(0, I): what the network shall see in the noisy images.
        step: of the schedule, drawn at random for each image.

    Source: Ho et al. (2020), Denoising Diffusion Probabilistic Models, algorithm 1.
    """
    optimizer.zero_grad()
    noisy = schedule.add_noise(images, noise, step)
    loss = simple_loss(denoiser(noisy, step), noise)
    backward(loss)
    optimizer.step()
    return {"noise_loss": loss.detach()}


def adversarial_step(
    players: Players,
    real: Float[Tensor, "batch *shape"],
    latent: Float[Tensor, "batch latent_dim"],
    condition: Shaped[Tensor, "batch *given"] | None = None,
    *,
    game: Game = NON_SATURATING,
    penalty: Penalty | None = None,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update the discriminator, then the generator, on one batch.

    Args:
        condition: what both networks are told of each real image, too, if anything:
            its class, or a part of it. A fake is made for each of them.
        penalty: is added to the discriminator's loss; called with the discriminator,
            the real images, the fakes and, where there is one, the condition.

    Returns both losses. What they are measured in is the game's business.
    """
    told = () if condition is None else (condition,)
    fake = players.generator(latent, *told)
    losses = discriminator_step(
        players,
        real,
        fake.detach(),  # keeps this gradient out of the generator
        condition,
        game=game,
        penalty=penalty,
        backward=backward,
    )
    return losses | generator_step(
        players,
        real,
        fake,
        condition,
        game=game,
        backward=backward,
    )


def discriminator_step(
    players: Players,
    real: Float[Tensor, "batch *shape"],
    fake: Float[Tensor, "batch *shape"],
    condition: Shaped[Tensor, "batch *given"] | None = None,
    *,
    game: Game = NON_SATURATING,
    penalty: Penalty | None = None,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update the discriminator alone, on fakes that carry no gradient."""
    told = () if condition is None else (condition,)
    discriminator = players.discriminator
    players.discriminator_optimizer.zero_grad()
    loss = game.discriminator(
        discriminator(real, *told),
        discriminator(fake, *told),
    )
    if penalty is not None:
        loss = loss + penalty(discriminator, real, fake, *told)
    backward(loss)
    players.discriminator_optimizer.step()
    return {"discriminator_loss": loss.detach()}


def generator_step(
    players: Players,
    real: Float[Tensor, "batch *shape"],
    fake: Float[Tensor, "batch *shape"],
    condition: Shaped[Tensor, "batch *given"] | None = None,
    *,
    game: Game = NON_SATURATING,
    reconstruction: Reconstruction | None = None,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update the generator alone, through a discriminator that stays as it is.

    Args:
        condition: as for `adversarial_step`.
        reconstruction: is added to the generator's loss; called with the fakes and
            the real images that they shall be like.

    The real images are looked at only where the game is paired, or for the
    reconstruction.
    """
    told = () if condition is None else (condition,)
    players.generator_optimizer.zero_grad()
    with frozen(players.discriminator):
        logits = players.discriminator(fake, *told)
        if game.paired:
            of_real = players.discriminator(real, *told)
            loss = game.generator(of_real, logits)
        else:
            loss = game.generator(logits)
        if reconstruction is not None:
            loss = loss + reconstruction(fake, real)
        backward(loss)
    players.generator_optimizer.step()
    return {"generator_loss": loss.detach()}


def cycle_step(
    there: Players,
    back: Players,
    first: Float[Tensor, "first *shape"],
    second: Float[Tensor, "second *shape"],
    *,
    cycle_weight: float = 10.0,
    game: Game = NON_SATURATING,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update two GANs that translate between two piles of images without pairs.

    The generator of `there` turns images of the first pile into some of the second,
    whose discriminator it has; `back` does the reverse. Both generators minimise
    their adversarial losses and `cycle_weight` times the mean absolute difference
    between each image and what comes back of it.

    Returns the losses of both discriminators, of both generators, and of the cycle,
    without its weight.

    Source: Zhu et al. (2017), section 3, equations 1 to 3. They use the
    least-squares game and show the discriminators earlier fakes, too; we do not.
    """
    fake_second, fake_first = there.generator(first), back.generator(second)
    losses = {}
    for name, players, real, fake in (
        ("there", there, second, fake_second),
        ("back", back, first, fake_first),
    ):
        found = discriminator_step(players, real, fake.detach(), game=game, backward=backward)
        losses[f"{name}_discriminator_loss"] = found["discriminator_loss"]

    there.generator_optimizer.zero_grad()
    back.generator_optimizer.zero_grad()
    with frozen(there.discriminator), frozen(back.discriminator):
        of_there = game.generator(there.discriminator(fake_second))
        of_back = game.generator(back.discriminator(fake_first))
        cycle = l1_loss(back.generator(fake_second), first)
        cycle = cycle + l1_loss(there.generator(fake_first), second)
        backward(of_there + of_back + cycle_weight * cycle)
    there.generator_optimizer.step()
    back.generator_optimizer.step()
    return losses | {
        "there_generator_loss": of_there.detach(),
        "back_generator_loss": of_back.detach(),
        "cycle_loss": cycle.detach(),
    }


def unrolled_generator_step(
    players: Players,
    real: Float[Tensor, "batch *shape"],
    fake: Float[Tensor, "batch *shape"],
    *,
    game: Game = NON_SATURATING,
    unrolled_steps: int = 5,
    rate: float,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update the generator alone, by what the discriminator would say after some
    more steps of its own.

    These steps are plain gradient descent with this rate, on this batch, and the
    generator's gradient goes through them: it learns how the discriminator would
    answer its update. The discriminator itself stays as it is.

    Source: Metz et al. (2017), section 2.2, with the inner steps of its equation 8.
    Their experiments take the optimiser of the outer steps for the inner ones, too.
    """
    players.generator_optimizer.zero_grad()
    discriminator = players.discriminator
    weights = {
        name: weight.detach().requires_grad_()  # not the ones that its optimiser has
        for name, weight in discriminator.named_parameters()
    }

    def judge(images: Tensor) -> Tensor:
        return functional_call(discriminator, weights, (images,))

    for _ in range(unrolled_steps):
        loss = game.discriminator(judge(real), judge(fake))
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        pairs = zip(weights.items(), slopes, strict=True)
        weights = {name: weight - rate * slope for (name, weight), slope in pairs}
    answers = (judge(real), judge(fake)) if game.paired else (judge(fake),)
    loss = game.generator(*answers)
    backward(loss)
    players.generator_optimizer.step()
    return {"generator_loss": loss.detach()}


def semi_supervised_step(
    players: Players,
    labelled: Float[Tensor, "labelled channels height width"],
    labels: Int[Tensor, " labelled"],
    unlabelled: Float[Tensor, "unlabelled channels height width"],
    latent: Float[Tensor, "fake latent_dim"],
    *,
    matching: Callable[[Tensor, Tensor], Tensor] | None = feature_matching_loss,
    backward: Backward = Tensor.backward,
) -> dict[str, Tensor]:
    """Update the discriminator, then the generator, on one batch.

    The generator minimises `matching` of real and generated features; where it is
    None, the non-saturating loss of a plain GAN.

    Returns the discriminator's losses in nats, and the generator's.
    """
    fake = players.generator(latent)

    # Discriminator. `detach` keeps this gradient out of the generator.
    losses, real_features = semi_supervised_discriminator_step(
        players.discriminator,
        players.discriminator_optimizer,
        labelled,
        labels,
        unlabelled,
        fake.detach(),
        backward=backward,
    )

    # Generator: the same fakes, seen by the discriminator just updated.
    # The real features are those of the pass before the update.
    players.generator_optimizer.zero_grad()
    with frozen(players.discriminator):
        logits, features = players.discriminator(fake)
        if matching is None:
            of_generator = generator_loss(real_logit(logits))
        else:
            of_generator = matching(real_features, features)
        backward(of_generator)
    players.generator_optimizer.step()
    return {**losses, "generator_loss": of_generator.detach()}


def semi_supervised_discriminator_step(
    discriminator: nn.Module,
    optimizer: Optimizer,
    labelled: Float[Tensor, "labelled channels height width"],
    labels: Int[Tensor, " labelled"],
    unlabelled: Float[Tensor, "unlabelled channels height width"],
    fake: Float[Tensor, "fake channels height width"],
    *,
    backward: Backward = Tensor.backward,
) -> tuple[dict[str, Tensor], Float[Tensor, "unlabelled features"]]:
    """Update the discriminator alone, on one pass over all three kinds of images.

    Returns its two losses in nats, and the unlabelled images' features, detached.
    """
    optimizer.zero_grad()
    sizes = [len(labelled), len(unlabelled), len(fake)]
    logits, features = discriminator(torch.cat([labelled, unlabelled, fake]))
    of_labelled, of_unlabelled, of_fake = logits.split(sizes)
    loss = semi_supervised_discriminator_loss(
        of_labelled,
        labels,
        of_unlabelled,
        of_fake,
    )
    backward(loss.classes + loss.real_or_fake)
    optimizer.step()
    losses = {
        "class_loss": loss.classes.detach(),
        "real_or_fake_loss": loss.real_or_fake.detach(),
    }
    return losses, features.split(sizes)[1].detach()
