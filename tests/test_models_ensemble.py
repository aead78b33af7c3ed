import copy

import pytest
import torch
from torch import nn
from torch.optim import Adam

from course_lib.data.toy import ring
from course_lib.errors import InputError
from course_lib.losses.adversarial import GAMES
from course_lib.losses.gradient_penalty import r1_penalty
from course_lib.models.ensemble import Ensemble
from course_lib.models.mlp_gan import Discriminator, Generator
from course_lib.training.steps import Players, adversarial_step


def networks(kind, count, **sizes):
    torch.manual_seed(0)
    return [kind(width=6, depth=2, **sizes).double() for _ in range(count)]


@pytest.mark.parametrize("classes", [None, 4])
def test_each_network_gets_its_own_part_of_the_batch(classes):
    members = networks(Generator, 3, latent_dim=2, classes=classes)
    together = Ensemble(members)
    latent = torch.randn(15, 2, dtype=torch.float64)
    labels = () if classes is None else (torch.arange(15) % classes,)
    found = together(latent, *labels)
    for index, member in enumerate(members):
        own = slice(5 * index, 5 * index + 5)
        expected = member(latent[own], *(label[own] for label in labels))
        assert torch.allclose(found[own], expected, atol=1e-12)
        assert torch.equal(together.member(index)(latent[own], *(label[own] for label in labels)), expected)
    assert len(together) == 3


def adam(network):
    return Adam(network.parameters(), 1e-2, betas=(0.5, 0.9))


def test_games_played_together_are_those_played_one_by_one():
    generators, discriminators = networks(Generator, 3, latent_dim=2), networks(Discriminator, 3)
    data, together = ring(), [Ensemble(generators), Ensemble(discriminators)]
    players = Players(*together, *map(adam, together))
    alone = [
        Players(g, d, adam(g), adam(d))
        for g, d in zip(copy.deepcopy(generators), copy.deepcopy(discriminators), strict=True)
    ]

    def penalty(discriminator, real, fake):
        return r1_penalty(discriminator, real, gamma=2.0)

    rules = {"game": GAMES["relativistic"], "penalty": penalty}
    for _ in range(3):
        real, latent = data.sample(12).double(), torch.randn(12, 2, dtype=torch.float64)
        adversarial_step(players, real, latent, **rules, backward=lambda loss: (3 * loss).backward())
        for one, own_real, own_latent in zip(alone, real.split(4), latent.split(4), strict=True):
            adversarial_step(one, own_real, own_latent, **rules)
    for index, one in enumerate(alone):
        for network, both in ((one.generator, players.generator), (one.discriminator, players.discriminator)):
            for expected, found in zip(network.parameters(), both.member(index).parameters(), strict=True):
                assert torch.allclose(found, expected, atol=1e-10)


def test_a_network_that_is_not_a_number_leaves_the_others_alone():
    members = networks(Discriminator, 2)
    together = Ensemble(members)
    points = torch.randn(8, 2, dtype=torch.float64)
    points[0] = torch.nan
    together(points).mean().backward()
    assert together.weights[0].grad[0].isnan().any()
    assert all(weight.grad[1].isfinite().all() for weight in together.weights)


def test_the_networks_given_are_copied():
    members = networks(Discriminator, 2)
    together = Ensemble(members)
    before = together.weights[0].detach().clone()
    with torch.no_grad():
        next(members[0].parameters()).zero_()
    assert torch.equal(together.weights[0], before)


def test_what_cannot_be_an_ensemble_is_refused():
    with pytest.raises(InputError, match="found 0 networks"):
        Ensemble([])
    with pytest.raises(InputError, match=r"found running_mean, running_var, num_batches_tracked in the network"):
        Ensemble([nn.BatchNorm1d(2)])
    with pytest.raises(InputError, match="found a batch of 7 for 2 networks"):
        Ensemble(networks(Discriminator, 2))(torch.zeros(7, 2, dtype=torch.float64))
