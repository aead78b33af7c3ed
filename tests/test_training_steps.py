import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_lib.losses.adversarial import GAMES
from course_lib.losses.diffusion import cosine_schedule
from course_lib.losses.semi_supervised import feature_matching_loss, real_logit
from course_lib.models import mlp_gan as toy
from course_lib.models.classifier import Classifier
from course_lib.models.semi_supervised_gan import Generator
from course_lib.models.vae import VAE
from course_lib.training.steps import (
    Players,
    adversarial_step,
    autoencoder_step,
    diffusion_step,
    frozen,
    generator_step,
    semi_supervised_step,
    supervised_step,
    unrolled_generator_step,
    vae_step,
)


@pytest.fixture
def players():
    torch.manual_seed(0)
    generator = Generator(channels=1, side_px=8, latent_dim=5)
    discriminator = Classifier(channels=1, side_px=8, classes=3, noise_std=0.0, dropout=0.0)
    for weight in [*generator.parameters(), *discriminator.parameters()]:
        weight.grad = torch.ones_like(weight)  # left over from a step before; no step may add to it
    return Players(
        generator,
        discriminator,
        torch.optim.SGD(generator.parameters(), lr=0.1),
        torch.optim.SGD(discriminator.parameters(), lr=0.1),
    )


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 1]), torch.rand(6, 1, 8, 8), torch.randn(6, 5)


def test_a_supervised_step_is_one_descent_on_the_cross_entropy(players, batch):
    classifier, optimizer = players.discriminator, players.discriminator_optimizer
    images, labels, _, _ = batch
    by_hand = copy.deepcopy(classifier)
    loss = cross_entropy(by_hand(images).logits, labels)
    gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
    found = supervised_step(classifier, optimizer, images, labels)
    assert found["class_loss"].item() == pytest.approx(loss.item())
    for new, old, gradient in zip(classifier.parameters(), by_hand.parameters(), gradients, strict=True):
        assert torch.allclose(new, old - 0.1 * gradient, atol=1e-6)


def squared_distance(real_features, fake_features):
    return (real_features.mean(0) - fake_features.mean(0)).square().sum()


@pytest.mark.parametrize("matching", [feature_matching_loss, squared_distance, None])
def test_a_semi_supervised_step_is_the_two_updates_written_out(players, batch, matching):
    labelled, labels, unlabelled, latent = batch
    generator, discriminator = copy.deepcopy(players.generator), copy.deepcopy(players.discriminator)
    found = semi_supervised_step(players, labelled, labels, unlabelled, latent, matching=matching)

    fake = generator(latent)
    real_pass = discriminator(unlabelled)
    d_loss = (
        cross_entropy(discriminator(labelled).logits, labels)
        - real_logit(real_pass.logits).sigmoid().log().mean() / 2
        - (1 - real_logit(discriminator(fake.detach()).logits).sigmoid()).log().mean() / 2
    )
    gradients = torch.autograd.grad(d_loss, list(discriminator.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(discriminator.parameters(), gradients, strict=True):
            parameter -= 0.1 * gradient
    for new, expected in zip(players.discriminator.parameters(), discriminator.parameters(), strict=True):
        assert torch.allclose(new, expected, atol=1e-5)

    of_fake = discriminator(fake)
    if matching:
        g_loss = matching(real_pass.features.detach(), of_fake.features)
    else:
        g_loss = -real_logit(of_fake.logits).sigmoid().log().mean()
    gradients = torch.autograd.grad(g_loss, list(generator.parameters()))
    for new, old, gradient in zip(players.generator.parameters(), generator.parameters(), gradients, strict=True):
        assert torch.allclose(new, old - 0.1 * gradient, atol=1e-5)
    assert found["class_loss"].item() + found["real_or_fake_loss"].item() == pytest.approx(d_loss.item(), rel=1e-5)
    assert found["generator_loss"].item() == pytest.approx(g_loss.item(), rel=1e-4)
    assert not any(value.requires_grad for value in found.values())


def test_a_frozen_network_passes_gradients_and_gets_none(players, batch):
    images = batch[0].requires_grad_()
    players.discriminator.zero_grad()
    with frozen(players.discriminator):
        players.discriminator(images).features.sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in players.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in players.discriminator.parameters())


def test_a_layer_that_was_frozen_on_purpose_stays_so(players):
    players.discriminator.layers.requires_grad_(False)
    with pytest.raises(KeyboardInterrupt), frozen(players.discriminator):
        assert not any(parameter.requires_grad for parameter in players.discriminator.parameters())
        raise KeyboardInterrupt
    assert not any(parameter.requires_grad for parameter in players.discriminator.layers.parameters())
    assert all(parameter.requires_grad for parameter in players.discriminator.head.parameters())


def points(count):
    torch.manual_seed(1)
    return torch.randn(count, 2), torch.randn(count, 3), torch.arange(count) % 4


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("classes", [None, 4])
@pytest.mark.parametrize("penalty", [None, 0.7])
def test_an_adversarial_step_is_the_two_updates_written_out(name, classes, penalty):
    torch.manual_seed(0)
    networks = [toy.Generator(latent_dim=3, width=5, classes=classes), toy.Discriminator(width=5, classes=classes)]
    for weight in [weight for network in networks for weight in network.parameters()]:
        weight.grad = torch.ones_like(weight)  # left over from a step before
    generator, discriminator = map(copy.deepcopy, networks)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in networks]
    game = GAMES[name]
    real, latent, labels = points(6)
    labels = () if classes is None else (labels,)
    penalize = penalty and (
        lambda network, real, fake, *labels: penalty * network(real + fake, *labels).square().mean()
    )
    found = adversarial_step(Players(*networks, *optimizers), real, latent, *labels, game=game, penalty=penalize)

    fake = generator(latent, *labels)
    d_loss = game.discriminator(discriminator(real, *labels), discriminator(fake, *labels))
    if penalty:
        d_loss = d_loss + penalty * discriminator(real + fake, *labels).square().mean()
    d_gradients = torch.autograd.grad(d_loss, list(discriminator.parameters()), retain_graph=True)
    with torch.no_grad():
        for weight, gradient in zip(discriminator.parameters(), d_gradients, strict=True):
            weight -= 0.1 * gradient
    logits = discriminator(fake, *labels)
    g_loss = game.generator(discriminator(real, *labels), logits) if game.paired else game.generator(logits)
    g_gradients = torch.autograd.grad(g_loss, list(generator.parameters()))
    with torch.no_grad():
        for weight, gradient in zip(generator.parameters(), g_gradients, strict=True):
            weight -= 0.1 * gradient

    assert found["discriminator_loss"].item() == pytest.approx(d_loss.item(), abs=1e-6)
    assert found["generator_loss"].item() == pytest.approx(g_loss.item(), abs=1e-6)
    assert not any(loss.requires_grad for loss in found.values())
    for network, expected in zip(networks, (generator, discriminator), strict=True):
        for new, old in zip(network.parameters(), expected.parameters(), strict=True):
            assert torch.allclose(new, old, atol=1e-6)
            assert new.requires_grad


@pytest.fixture
def in_the_plane():
    """Two players, a real batch and the fakes that the generator has just drawn."""
    torch.manual_seed(2)
    generator, discriminator = toy.Generator(latent_dim=2, width=8), toy.Discriminator(width=8)
    optimizers = [torch.optim.SGD(player.parameters(), lr=0.1) for player in (generator, discriminator)]
    return Players(generator, discriminator, *optimizers), torch.randn(6, 2), generator(torch.randn(6, 2))


@pytest.mark.parametrize("name", GAMES)
def test_without_a_step_ahead_an_unrolled_generator_is_a_plain_one(in_the_plane, name):
    players, real, fake = in_the_plane
    generator = copy.deepcopy(players.generator)
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    again = Players(generator, players.discriminator, optimizer, players.discriminator_optimizer)
    fake_again = fake.detach() + 0 * sum(weight.sum() for weight in generator.parameters())
    fake_again.retain_grad()
    fake.retain_grad()
    one = unrolled_generator_step(players, real, fake, game=GAMES[name], unrolled_steps=0, rate=1.0)
    other = generator_step(again, real, fake_again, game=GAMES[name])
    assert one["generator_loss"].item() == pytest.approx(other["generator_loss"].item())
    torch.testing.assert_close(fake.grad, fake_again.grad)


def test_an_unrolled_generator_takes_account_of_how_the_discriminator_will_answer(in_the_plane):
    """A lone weight w as discriminator, D's logit w x: one step ahead by hand, and its derivative by differences."""
    real, rate, weight = torch.tensor([[2.0, 0.0]], dtype=torch.float64), 0.5, 0.3

    class Slope(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64))

        def forward(self, points):
            return self.weight * points[:, 0]

    def ahead(x):
        """The generator's loss at a fake (x, 0) after one step of gradient descent by the discriminator."""
        sigmoid = lambda t: 1 / (1 + math.exp(-t))  # noqa: E731
        slope = -2 * (1 - sigmoid(2 * weight)) + x * sigmoid(weight * x)
        return math.log1p(math.exp(-(weight - rate * slope) * x))

    position = torch.nn.Parameter(torch.tensor([[0.7, 0.0]], dtype=torch.float64))
    optimizer, discriminator = torch.optim.SGD([position], lr=1.0), Slope()
    players = Players(torch.nn.Identity(), discriminator, optimizer, torch.optim.SGD(discriminator.parameters()))
    found = unrolled_generator_step(players, real, position * 1.0, unrolled_steps=1, rate=rate)
    assert found["generator_loss"].item() == pytest.approx(ahead(0.7), rel=1e-9)
    by_differences = (ahead(0.7 + 1e-6) - ahead(0.7 - 1e-6)) / 2e-6
    assert 0.7 - position[0, 0].item() == pytest.approx(by_differences, rel=1e-6)
    assert discriminator.weight.item() == weight and discriminator.weight.grad is None


def check_one_descent(network, by_hand, loss, step):
    """A step of plain gradient descent with rate 0.1 on this loss, whatever a step before has left in the gradients."""
    gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    found = step(network, torch.optim.SGD(network.parameters(), lr=0.1))
    assert not any(value.requires_grad for value in found.values())
    for new, old, gradient in zip(network.parameters(), by_hand.parameters(), gradients, strict=True):
        assert torch.allclose(new, old - 0.1 * gradient, atol=1e-6)
    return {name: value.item() for name, value in found.items()}


def test_an_autoencoders_step_is_one_descent_on_the_squared_error_from_the_targets():
    torch.manual_seed(0)
    network, inputs, targets = torch.nn.Linear(4, 4), torch.randn(5, 4), torch.randn(5, 4)
    by_hand = copy.deepcopy(network)
    loss = (by_hand(inputs) - targets).square().mean()
    found = check_one_descent(network, by_hand, loss, lambda *how: autoencoder_step(*how, inputs, targets))
    assert found == {"reconstruction_loss": pytest.approx(loss.item())}


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_a_vaes_step_is_one_descent_on_the_mean_of_the_bound(beta):
    torch.manual_seed(0)
    network, noise = VAE(channels=1, side_px=8, latent_dim=3, width=2), torch.randn(5, 3)
    images = torch.randint(0, 2, (5, 1, 8, 8)) * 2.0 - 1
    by_hand = copy.deepcopy(network)
    logits, mean, log_variance = by_hand(images, noise)
    right = torch.where(images > 0, logits.sigmoid(), 1 - logits.sigmoid())
    reconstruction = -right.log().sum((1, 2, 3)).mean()
    kl = ((mean**2 + log_variance.exp() - 1 - log_variance) / 2).sum(1).mean()
    loss = reconstruction + beta * kl
    found = check_one_descent(network, by_hand, loss, lambda *how: vae_step(*how, images, noise, beta=beta))
    assert found == {
        "negative_elbo_nats": pytest.approx(loss.item(), rel=1e-5),
        "reconstruction_nats": pytest.approx(reconstruction.item(), rel=1e-5),
        "kl_nats": pytest.approx(kl.item(), rel=1e-5),
    }


def test_a_diffusion_models_step_is_one_descent_on_the_squared_error_of_the_noise():
    class Network(torch.nn.Linear):
        """Sees the step, too."""

        def forward(self, noisy, step):
            return super().forward(noisy) * (step + 1)[:, None]

    torch.manual_seed(0)
    network, images, noise, step = Network(4, 4), torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 3])
    schedule, by_hand = cosine_schedule(5), copy.deepcopy(network)
    left = schedule.alpha_bars[step][:, None]
    noisy = left.sqrt() * images + (1 - left).sqrt() * noise
    loss = (by_hand(noisy, step) - noise).square().mean()
    step_of = lambda *how: diffusion_step(*how, images, noise, step, schedule)  # noqa: E731
    assert check_one_descent(network, by_hand, loss, step_of) == {"noise_loss": pytest.approx(loss.item())}
