import pytest
import torch
from torch import nn

from course_lib.errors import InputError
from course_lib.models.blocks import (
    Augmented,
    Dropout,
    GaussianNoise,
    initialise_from_data,
    weight_normalised,
)


def test_noise_has_the_given_spread_and_only_while_training():
    layer = GaussianNoise(0.3)
    x = torch.zeros(100_000)
    assert layer(x).std().item() == pytest.approx(0.3, rel=0.02)
    assert layer.eval()(x) is x


def test_dropout_drops_the_given_share_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = Dropout(0.2), torch.ones(100_000)
    dropped = layer(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.max().item() == pytest.approx(1.25)
    assert layer.eval()(x) is x


def test_dropout_passes_gradients_only_through_what_it_kept():
    x = torch.ones(1000, requires_grad=True)
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_that_keeps_nothing_or_too_much_is_refused(probability):
    with pytest.raises(InputError, match=rf"probability={probability} .* at least 0 and below 1"):
        Dropout(probability)


@pytest.mark.parametrize("std", [-0.1, float("inf"), float("nan")])
def test_noise_without_a_spread_is_refused(std):
    with pytest.raises(InputError, match=rf"std={std} .* finite number of at least 0"):
        GaussianNoise(std)


def test_after_initialisation_every_layer_has_standard_outputs():
    torch.manual_seed(0)
    layers = [weight_normalised(nn.Conv2d(1, 8, 3)), nn.ReLU(), nn.Flatten(), weight_normalised(nn.Linear(8 * 36, 5))]
    network = nn.Sequential(*layers)
    images = torch.rand(300, 1, 8, 8) * 2 - 1
    initialise_from_data(network, images)
    convolved = layers[0](images)
    assert convolved.mean([0, 2, 3]).abs().max() < 1e-4
    assert (convolved.std([0, 2, 3]) - 1).abs().max() < 1e-4
    assert network(images).mean(0).abs().max() < 1e-4
    assert (network(images).std(0) - 1).abs().max() < 1e-4


def test_weight_normalisation_keeps_one_length_per_output():
    layer = weight_normalised(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        layer.parametrizations.weight.original0.fill_(2.0)
    assert torch.allclose(layer.weight.flatten(1).norm(dim=1), torch.full((4,), 2.0))


def test_an_augmented_network_sees_changed_images_while_training_and_lets_gradients_through():
    network = Augmented(nn.Flatten(), lambda images: 3 * images + 1)
    images = torch.ones(2, 1, 2, 2, requires_grad=True)
    assert (network(images) == 4).all() and (network.eval()(images) == 1).all()
    network.train()(images).sum().backward()
    assert (images.grad == 3).all()
