import pytest
import torch
from torch import nn

from course_lib.errors import InputError
from course_lib.models.mlp_gan import Discriminator, Generator

LABELS = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_latent_vector_becomes_a_point_and_a_point_a_logit(depth):
    points = Generator(latent_dim=5, width=16, depth=depth)(torch.randn(3, 5))
    assert points.shape == (3, 2)
    network = Discriminator(width=16, depth=depth)
    assert network(points).shape == (3,)
    assert sum(isinstance(part, nn.LeakyReLU) for part in network.modules()) == depth


def test_points_and_logits_may_be_any_number():
    torch.manual_seed(0)
    generator, discriminator = Generator(latent_dim=2), Discriminator()
    points = generator(1000 * torch.randn(50, 2))
    logits = discriminator(points)
    assert points.min() < -2 and points.max() > 2
    assert discriminator(1000 * points).abs().max() > 20 and logits.min() < logits.max()


def test_what_the_discriminator_says_of_a_point_does_not_depend_on_its_neighbours():
    network, points = Discriminator(classes=3), torch.randn(3, 2)  # in training mode
    alone = torch.cat([network(points[i : i + 1], LABELS[i : i + 1]) for i in range(3)])
    assert torch.allclose(network(points, LABELS), alone, atol=1e-6)


def test_the_label_stands_as_one_hot_beside_the_input():
    torch.manual_seed(0)
    generator, discriminator = Generator(latent_dim=4, classes=3), Discriminator(classes=3)
    latent, points = torch.randn(3, 4), torch.randn(3, 2)
    assert torch.equal(generator(latent, LABELS), generator.layers(torch.cat([latent, torch.eye(3)], dim=1)))
    by_hand = discriminator.layers(torch.cat([points, torch.eye(3)], dim=1))[:, 0]
    assert torch.equal(discriminator(points, LABELS), by_hand)


def test_another_label_gives_another_point_and_another_logit():
    torch.manual_seed(0)
    generator, discriminator = Generator(latent_dim=4, classes=3), Discriminator(classes=3)
    same = torch.randn(1, 4).expand(3, 4), torch.randn(1, 2).expand(3, 2)
    assert len(generator(same[0], LABELS).unique(dim=0)) == 3
    assert len(discriminator(same[1], LABELS).unique()) == 3


def test_networks_in_float64_stay_there():
    network = Discriminator(classes=3).double()
    assert network(torch.randn(3, 2, dtype=torch.float64), LABELS).dtype == torch.float64


@pytest.mark.parametrize(
    "network, x", [(Generator(latent_dim=4), torch.zeros(3, 4)), (Discriminator(), torch.zeros(3, 2))], ids=["G", "D"]
)
def test_labels_that_no_class_awaits_are_refused(network, x):
    with pytest.raises(InputError, match="labels for a network without classes: leave them out"):
        network(x, LABELS)


@pytest.mark.parametrize(
    "network, x",
    [(Generator(latent_dim=4, classes=3), torch.zeros(3, 4)), (Discriminator(classes=3), torch.zeros(3, 2))],
    ids=["G", "D"],
)
def test_missing_labels_are_refused(network, x):
    with pytest.raises(InputError, match="no labels for 3 classes: give one"):
        network(x)


@pytest.mark.parametrize("size", ["latent_dim", "width", "depth", "classes"])
def test_a_size_of_zero_is_refused(size):
    sizes = {"latent_dim": 2, size: 0}
    with pytest.raises(InputError, match=f"{size}=0 .*at least 1"):
        Generator(**sizes)
    if size != "latent_dim":
        with pytest.raises(InputError, match=f"{size}=0 .*at least 1"):
            Discriminator(**{size: 0})


def test_dropout_stands_behind_each_activation_and_only_while_training():
    torch.manual_seed(0)
    network = Discriminator(width=16, depth=3, dropout=0.25)
    names = [type(layer).__name__ for layer in network.layers]
    assert names == ["Linear", "LeakyReLU", "Dropout"] * 3 + ["Linear"]
    assert {layer.probability for layer in network.layers if type(layer).__name__ == "Dropout"} == {0.25}
    points = torch.randn(5, 2)
    assert not torch.equal(network(points), network(points))
    network.eval()
    assert torch.equal(network(points), network(points))
    with pytest.raises(InputError, match="probability=1.0"):
        Discriminator(dropout=1.0)
