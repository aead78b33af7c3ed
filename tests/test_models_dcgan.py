import pytest
import torch
from torch import nn

from course_lib.errors import InputError
from course_lib.models.dcgan import Discriminator, Generator, sides

FORMS = [(4, side_px) for side_px in (8, 16, 28, 32, 64)] + [(5, side_px) for side_px in (16, 28, 32, 64)]


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


def weights(network, *kinds):
    return torch.cat([layer.weight.detach().flatten() for layer in network.modules() if isinstance(layer, kinds)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel, side_px", FORMS)
def test_images_and_logits_have_the_asked_form(kernel, side_px, channels):
    plan = {"channels": channels, "side_px": side_px, "width": 4, "kernel": kernel}
    images = Generator(latent_dim=7, **plan)(100 * torch.randn(3, 7))
    assert images.shape == (3, channels, side_px, side_px)
    assert images.min() >= -1 and images.max() <= 1
    assert Discriminator(**plan)(images).shape == (3,)


def test_the_flowers_networks_have_as_many_parameters_as_those_of_mathworks():
    assert parameters(Generator(channels=3, side_px=64, kernel=5)) == 5_134_339
    assert parameters(Discriminator(channels=3, side_px=64, kernel=5, dropout=0.5)) == 4_316_545


@pytest.mark.parametrize("kernel, side_px", FORMS)
def test_the_first_kernels_and_the_maps_are_those_of_the_plan(kernel, side_px):
    plan = {"channels": 2, "side_px": side_px, "width": 4, "kernel": kernel}
    upwards = [layer for layer in Generator(**plan).modules() if isinstance(layer, nn.ConvTranspose2d)]
    downwards = [layer for layer in Discriminator(**plan).modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.kernel_size for layer in upwards + downwards} == {(kernel, kernel)}
    assert [layer.out_channels for layer in downwards] == [4 * 2**number for number in range(len(downwards))]
    assert [layer.out_channels for layer in upwards[::-1]] == [2] + [
        4 * 2**number for number in range(len(upwards) - 1)
    ]
    first = next(layer.stride for layer in upwards)
    assert first == ((1, 1) if kernel == 5 else (2, 2))


def test_at_64_px_the_maps_are_those_of_the_paper():
    upwards = [
        layer for layer in Generator(channels=3, side_px=64, width=128).modules() if hasattr(layer, "num_features")
    ]
    assert [layer.num_features for layer in upwards] == [1024, 512, 256, 128]


@pytest.mark.parametrize(
    "kernel, side_px, expected",
    [(4, 8, [8, 4, 2]), (4, 28, [28, 14, 7]), (4, 64, [64, 32, 16, 8, 4]), (5, 28, [28, 14, 7]), (5, 16, [16, 8])],
)
def test_sides_are_halved_down_to_a_small_map(kernel, side_px, expected):
    assert sides(side_px, kernel) == expected


@pytest.mark.parametrize("kernel", [4, 5])
def test_there_is_no_batch_norm_at_the_generators_end_nor_at_the_discriminators_beginning(kernel):
    plan = {"channels": 1, "side_px": 32, "width": 4, "kernel": kernel}
    generator, discriminator = Generator(**plan).layers, Discriminator(**plan).layers
    assert [type(layer) for layer in generator[-2:]] == [nn.ConvTranspose2d, nn.Tanh]
    assert [type(layer) for layer in discriminator[:3]] == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d]
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in discriminator)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in discriminator) == convolutions - 1
    assert {layer.negative_slope for layer in discriminator if isinstance(layer, nn.LeakyReLU)} == {0.2}


def test_without_batch_norm_a_logit_depends_on_its_own_image_alone():
    images = torch.randn(4, 1, 16, 16)
    for batch_norm in (True, False):
        network = Discriminator(channels=1, side_px=16, width=4, batch_norm=batch_norm)
        one, other = network(images)[0], network(torch.cat([images[:1], 9 * images[1:]]))[0]
        assert torch.isclose(one, other, atol=1e-7).item() is not batch_norm


def test_dcgans_weights_begin_with_a_standard_deviation_of_a_fiftieth():
    torch.manual_seed(0)
    for network in (Generator(channels=3, side_px=32), Discriminator(channels=3, side_px=32)):
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 3000:
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
                assert abs(layer.weight.mean().item()) < 1e-3
        assert (weights(network, nn.BatchNorm2d) == 1).all()


def test_mathworks_weights_begin_as_glorots():
    torch.manual_seed(0)
    layers = Discriminator(channels=3, side_px=32, kernel=5).layers
    second = layers[2]
    limit = (6 / (25 * (64 + 128))) ** 0.5  # uniform between minus and plus this
    assert second.weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert second.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)


@pytest.mark.parametrize("kernel", [4, 5])
def test_gradient_reaches_every_weight_of_both_players_through_the_images(kernel):
    plan = {"channels": 1, "side_px": 16, "width": 4, "kernel": kernel}
    generator, discriminator = Generator(**plan), Discriminator(**plan)
    discriminator(generator(torch.randn(8, 100))).sigmoid().sum().backward()
    # A bias in front of batch norm is taken away again by it: its gradient is 0, up to rounding.
    for weight in (*generator.parameters(), *discriminator.parameters()):
        assert weight.grad is not None and (weight.ndim == 1 or weight.grad.abs().max() > 0)


def test_in_bfloat16_all_stays_finite_and_in_range():
    generator, discriminator = (
        Generator(channels=1, side_px=16, width=4),
        Discriminator(channels=1, side_px=16, width=4),
    )
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(100 * torch.randn(5, 100))
        logits = discriminator(images)
    assert images.dtype == torch.bfloat16 and images.abs().max() <= 1 and logits.isfinite().all()


def test_without_its_last_layer_a_discriminator_gives_features():
    network = Discriminator(channels=1, side_px=28, width=4).eval()
    images = torch.randn(3, 1, 28, 28)
    features = network.layers[:-1](images)
    assert features.shape == (3, 8 * 7 * 7)
    assert torch.allclose(network.layers[-1](features).squeeze(1), network(images))


def test_dropout_hides_pixels_while_training_only():
    seen = Discriminator(channels=1, side_px=16, width=4, dropout=0.5).layers[0]
    dropped = (seen(torch.ones(100, 1, 16, 16)) == 0).float().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.02)
    assert (seen.eval()(torch.ones(1, 1, 16, 16)) == 1).all()


@pytest.mark.parametrize("side_px", [0, 4, 10, 30, 60])
def test_a_side_that_doubling_cannot_reach_is_refused(side_px):
    for player in (Generator, Discriminator):
        with pytest.raises(InputError, match=f"side_px={side_px} .*4 x 4: use a multiple of 4 from 8 on"):
            player(channels=1, side_px=side_px, width=4)


@pytest.mark.parametrize("side_px", [8, 22])
def test_a_side_that_larger_kernels_cannot_reach_is_refused(side_px):
    with pytest.raises(InputError, match=f"side_px={side_px} .*5 x 5: use a multiple of 4 from 12 on"):
        Generator(channels=1, side_px=side_px, width=4, kernel=5)


@pytest.mark.parametrize("sizes", [{"width": 0}, {"channels": 0}, {"latent_dim": 0}])
def test_a_network_of_nothing_is_refused(sizes):
    name = next(iter(sizes))
    with pytest.raises(InputError, match=f"{name}=0 makes no network"):
        Generator(**{"channels": 1, "side_px": 16, "width": 4} | sizes)


def test_a_kernel_without_a_plan_is_refused():
    with pytest.raises(InputError, match="kernel=3 is no plan: use 4 or 5"):
        Generator(channels=1, side_px=16, kernel=3)
