"""Penalties against closed forms, in float64, and the faults that they are known for."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from course_lib.errors import InputError
from course_lib.losses.adversarial import relativistic_discriminator_loss
from course_lib.losses.gradient_penalty import gradient_penalty, r1_penalty, r2_penalty
from course_lib.models.mlp_gan import Discriminator

PENALTIES = {
    "gradient_penalty": lambda network, x: gradient_penalty(network, x, x.flip(0)),
    "r1": r1_penalty,
    "r2": r2_penalty,
}
every_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Linear(nn.Module):
    """f(x) = a . x."""

    def __init__(self, *a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.a


class Quadratic(nn.Module):
    """f(x) = |x|^2 / 2, whose gradient is x; keeps the points at which it was asked."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.asked = []

    def forward(self, x):
        self.asked.append(x.detach())
        return self.scale * x.flatten(1).square().sum(1) / 2


def points(count=6, *shape):
    return torch.randn(count, *(shape or (2,)), dtype=torch.float64)


def test_a_linear_critic_of_slope_one_costs_nothing():
    assert gradient_penalty(Linear(0.6, -0.8), points(), points()).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("a, length", [((3.0, 4.0), 5.0), ((0.3, 0.4), 0.5)], ids=["steep", "flat"])
def test_of_a_linear_critic_the_gradient_penalty_is_the_square_of_its_length_minus_one(a, length):
    loss = gradient_penalty(Linear(*a), points(), points(), weight=0.1)
    assert loss.item() == pytest.approx(0.1 * (length - 1) ** 2, rel=1e-12)
    assert gradient_penalty(Linear(*a), points(), points()).item() == pytest.approx(10 * (length - 1) ** 2, rel=1e-12)


def test_the_gradient_of_the_gradient_penalty_over_the_weights_is_pinned():
    critic = Linear(3.0, 4.0)
    gradient_penalty(critic, points(), points(), weight=1.0).backward()
    assert torch.allclose(critic.a.grad, 2 * (5 - 1) * torch.tensor([0.6, 0.8], dtype=torch.float64))


def test_a_critic_without_slope_has_a_penalty_and_a_gradient_that_is_a_number():
    critic = Linear(0.0, 0.0)
    loss = gradient_penalty(critic, points(), points())
    loss.backward()
    assert loss.item() == 10 and torch.equal(critic.a.grad, torch.zeros(2, dtype=torch.float64))


def epsilons(critic, real, fake):
    """Return where between fake (0) and real (1) a critic was asked last, per image and pixel."""
    return (critic.asked[-1] - fake) / (real - fake)


def test_epsilon_is_one_for_all_pixels_and_differs_between_images_and_calls():
    critic, real, fake = Quadratic().double(), points(50, 3, 4, 4), points(50, 3, 4, 4)
    gradient_penalty(critic, real, fake)
    first = epsilons(critic, real, fake).flatten(1)
    assert torch.allclose(first, first[:, :1].expand_as(first), atol=1e-9)
    assert first[:, 0].unique().numel() == 50
    gradient_penalty(critic, real, fake)
    assert (epsilons(critic, real, fake).flatten(1)[:, 0] - first[:, 0]).abs().max() > 0.1


def test_epsilon_is_uniform_from_fake_to_real():
    critic, real, fake = Quadratic().double(), torch.ones(20_000, 1).double(), torch.zeros(20_000, 1).double()
    gradient_penalty(critic, real, fake)
    counts = torch.histc(epsilons(critic, real, fake), bins=10, min=0, max=1)
    assert counts.sum() == 20_000 and (counts - 2000).abs().max() < 200


def test_of_a_quadratic_r1_and_r2_are_half_gamma_times_the_mean_squared_length():
    x = points(5, 1, 2, 2)
    expected = 3.0 / 2 * x.square().sum(dim=(1, 2, 3)).mean()
    for penalty in (r1_penalty, r2_penalty):
        assert torch.allclose(penalty(Quadratic().double(), x, gamma=3.0), expected, rtol=1e-12)
        assert torch.allclose(penalty(Quadratic().double(), x), expected * 10 / 3, rtol=1e-12)


@pytest.mark.parametrize("penalty", [r1_penalty, r2_penalty])
def test_the_gradient_of_r1_and_r2_over_the_weights_is_pinned(penalty):
    critic = Linear(3.0, 4.0)
    penalty(critic, points(), gamma=2.0).backward()
    assert critic.a.grad.tolist() == pytest.approx([6.0, 8.0])


def test_r3gan_is_the_relativistic_loss_with_both_penalties():
    """As the authors' code computes it, from one pass."""
    network, gamma = Discriminator().double(), 0.7
    real, fake = points().requires_grad_(), points().requires_grad_()
    ours = relativistic_discriminator_loss(network(real), network(fake))
    ours = ours + r1_penalty(network, real, gamma=gamma) + r2_penalty(network, fake, gamma=gamma)
    of_real, of_fake = network(real), network(fake)
    (slope_real,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
    (slope_fake,) = torch.autograd.grad(of_fake.sum(), fake, create_graph=True)
    squared = slope_real.square().sum(1) + slope_fake.square().sum(1)
    theirs = (softplus(-(of_real - of_fake)) + gamma / 2 * squared).mean()
    assert torch.allclose(ours, theirs, rtol=1e-12)
    weights = list(network.parameters())[:-1]  # no slope depends on the last bias, and no difference of logits
    for a, b in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(theirs, weights), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@every_penalty
def test_the_step_can_differentiate_a_penalty_over_the_weights(penalty):
    network = Discriminator(width=8).double()
    x = points()
    torch.manual_seed(1)
    loss = penalty(network, x)
    loss.backward()
    weight = network.layers[0].weight
    slope, before, step = weight.grad[0, 0].item(), weight[0, 0].item(), 1e-6
    values = []
    for moved in (before + step, before - step):
        with torch.no_grad():
            weight[0, 0] = moved
        torch.manual_seed(1)
        values.append(penalty(network, x).item())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4) and abs(slope) > 1e-6


def test_no_gradient_reaches_the_generator_or_the_images():
    network, real, fake = Quadratic().double(), points().requires_grad_(), points().requires_grad_()
    (gradient_penalty(network, real, fake) + r1_penalty(network, real) + r2_penalty(network, fake)).backward()
    assert real.grad is None and fake.grad is None and network.scale.grad is not None


def test_the_labels_reach_a_discriminator_with_classes():
    network, labels = Discriminator(classes=3).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    x = points()
    one_by_one = [r1_penalty(network, x[i : i + 1], labels[i : i + 1]) for i in range(6)]
    assert torch.allclose(r1_penalty(network, x, labels), torch.stack(one_by_one).mean(), rtol=1e-9)
    assert torch.equal(r2_penalty(network, x, labels), r1_penalty(network, x, labels))
    assert not torch.allclose(r1_penalty(network, x, labels), r1_penalty(network, x, labels.roll(1)), rtol=1e-3)
    at_real = gradient_penalty(network, x, x, labels)  # between x and x there is only x
    assert not torch.allclose(at_real, gradient_penalty(network, x, x, labels.roll(1)), rtol=1e-6)


@every_penalty
@pytest.mark.parametrize("layer, shape", [(nn.BatchNorm1d(2), (2,)), (nn.BatchNorm2d(3), (3, 4, 4))], ids=["1d", "2d"])
def test_batch_normalisation_is_refused_by_its_place(penalty, layer, shape):
    network = nn.Sequential(nn.Identity(), nn.Sequential(layer), nn.Flatten())
    with pytest.raises(InputError, match=rf"found {type(layer).__name__} 1\.0 .*whole batch.*layer normalisation"):
        penalty(network, torch.randn(6, *shape))


@every_penalty
def test_layer_normalisation_is_let_through(penalty):
    assert penalty(nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 1)), torch.randn(6, 2)) > 0


def all_of(network, penalty, x):
    """Return a penalty and its gradient over the weights."""
    torch.manual_seed(1)
    loss = penalty(network, x)
    network.zero_grad()
    return [loss.detach(), *torch.autograd.grad(loss, network.parameters(), allow_unused=True)][:-1]


@every_penalty
def test_inside_a_bfloat16_autocast_the_penalty_is_the_float32_one(penalty):
    network, x = Discriminator(), torch.randn(64, 2)
    expected = all_of(network, penalty, x)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(x).dtype == torch.bfloat16
        loss = penalty(network, x)
    found = [loss.detach(), *torch.autograd.grad(loss, network.parameters(), allow_unused=True)][:-1]
    assert loss.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@every_penalty
def test_bfloat16_images_are_penalised_in_float32(penalty):
    assert penalty(Discriminator(), torch.randn(6, 2).bfloat16()).dtype == torch.float32


@every_penalty
def test_a_forward_with_an_autocast_of_its_own_is_refused_and_a_copy_made_before_is_not(penalty):
    network, x = Discriminator(), torch.randn(64, 2)
    expected = all_of(network, penalty, x)
    bare = copy.copy(network)
    network.forward = torch.autocast("cpu", dtype=torch.bfloat16)(network.forward)  # as Accelerate does
    with pytest.raises(InputError, match="another forward in Discriminator .*copy.copy made before"):
        penalty(network, x)
    assert all(torch.equal(a, b) for a, b in zip(expected, all_of(bare, penalty, x), strict=True))
    assert all(a is b for a, b in zip(bare.parameters(), network.parameters(), strict=True))
