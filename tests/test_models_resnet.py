import pytest
import torch
import torchvision
from torch import nn

from course_lib.errors import InputError
from course_lib.models.resnet import ResidualBlock, ResNet

SMALL = {"channels": 1, "classes": 10, "widths": (8, 16), "small_stem": True}


@pytest.fixture(scope="module")
def pair() -> tuple[ResNet, nn.Module]:
    """The article's network as we build it and as torchvision does, with the same weights, evaluating."""
    torch.manual_seed(0)
    ours, theirs = ResNet(channels=3, classes=10), torchvision.models.resnet18(num_classes=10)
    # Both name their weights differently but list them in the same order.
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    return ours.eval(), theirs.eval()


def test_the_articles_network_is_the_resnet_of_eighteen_layers(pair):
    ours, theirs = pair
    assert ours.depth == 18
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 11_181_642


def test_with_the_same_weights_it_says_what_torchvisions_says(pair):
    ours, theirs = pair
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(ours(images).logits, theirs(images), atol=1e-4)


def test_he_initialisation_draws_the_weights_that_the_paper_gives(pair):
    for layer in pair[0].modules():
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("side_px", [8, 11])
def test_small_pictures_give_logits_and_features(skip, batch_norm, side_px):
    network = ResNet(blocks=(1, 2), skip=skip, batch_norm=batch_norm, **SMALL)
    logits, features = network(torch.rand(3, 1, side_px, side_px))
    assert logits.shape == (3, 10) and features.shape == (3, 16)
    assert network.depth == 8


def test_a_block_whose_layers_say_nothing_hands_on_its_input_only_with_a_skip():
    x = torch.rand(2, 4, 5, 5)
    for skip in (True, False):
        block = ResidualBlock(4, 4, skip=skip)
        for parameter in block.layers.parameters():
            nn.init.zeros_(parameter)
        assert torch.equal(block(x), x if skip else torch.zeros_like(x))


def test_the_switch_changes_nothing_but_the_skips():
    with_skips, without = (ResNet(blocks=(3,), channels=1, classes=2, widths=(8,), skip=skip) for skip in (True, False))
    shapes = [[tuple(parameter.shape) for parameter in network.parameters()] for network in (with_skips, without)]
    assert shapes[0] == shapes[1]  # in one stage every skip is the identity and has no weights


def test_without_batch_norm_there_is_none_and_the_convolutions_have_a_bias():
    network = ResNet(blocks=(1, 1), batch_norm=False, **SMALL)
    assert not [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(layer.bias is not None for layer in network.modules() if isinstance(layer, nn.Conv2d))


def test_gradients_of_a_deep_network_reach_the_first_layer_with_skips_and_vanish_without():
    sizes = {}
    for skip in (True, False):
        torch.manual_seed(0)
        network = ResNet(
            channels=1,
            classes=10,
            blocks=(20,),
            widths=(8,),
            small_stem=True,
            skip=skip,
            batch_norm=False,
            initialisation="default",
        )
        network(torch.rand(16, 1, 8, 8)).logits.logsumexp(dim=1).mean().backward()
        sizes[skip] = network.stem[0].weight.grad.norm().item()
    assert sizes[True] > 1e6 * sizes[False]


@pytest.mark.parametrize(("blocks", "widths"), [((), ()), ((2, 2), (8,)), ((2, 0), (8, 16))])
def test_stages_that_do_not_fit_together_are_refused(blocks, widths):
    with pytest.raises(InputError, match=r"do not describe stages: give one positive number"):
        ResNet(channels=1, classes=2, blocks=blocks, widths=widths)
