import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from course_lib.errors import InputError
from course_lib.models.diffusion import Block, UNet, time_embedding


@pytest.mark.parametrize("channels, side_px, width", [(1, 8, 4), (1, 28, 5), (3, 16, 3)])
def test_a_unet_answers_with_noise_of_the_form_of_the_pictures(channels, side_px, width):
    network = UNet(channels=channels, side_px=side_px, width=width)
    noisy = torch.randn(4, channels, side_px, side_px)
    assert network(noisy, torch.tensor([0, 1, 500, 999])).shape == noisy.shape


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(channels=1, side_px=8, width=4).eval()


def test_the_answer_depends_on_the_step_of_its_own_picture_alone(network):
    noisy = torch.randn(1, 1, 8, 8).expand(3, 1, 8, 8)
    one, same, other = network(noisy, torch.tensor([3, 3, 700]))
    assert torch.allclose(one, same, atol=1e-6) and not torch.allclose(one, other, atol=1e-3)


def test_the_embedding_reaches_every_block(network):
    changed = []
    hook = register_module_forward_hook(
        lambda layer, given, made: changed.append(given[1]) if isinstance(layer, Block) else None
    )
    try:
        network(torch.randn(2, 1, 8, 8), torch.tensor([0, 9]))
    finally:
        hook.remove()
    assert len(changed) == 5 and all(torch.equal(changed[0], other) for other in changed)
    for block in (part for part in network.modules() if isinstance(part, Block)):
        x = torch.randn(1, block.first[0].num_features, 4, 4).expand(2, -1, -1, -1)
        made = block(x, changed[0])
        assert not torch.allclose(made[0], made[1], atol=1e-4)


def test_a_skip_carries_the_maps_past_the_middle(network):
    """With everything below cut off, the picture still decides the answer."""
    for part in (network.shrink_1, network.shrink_2):
        torch.nn.init.zeros_(part.weight)
    step = torch.zeros(1, dtype=torch.int64)
    one, other = (network(torch.randn(1, 1, 8, 8), step) for _ in range(2))
    assert not torch.allclose(one, other, atol=1e-3)


def test_the_middle_is_used(network):
    noisy, step = torch.randn(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    before = network(noisy, step)
    torch.nn.init.zeros_(network.shrink_2.weight)
    assert not torch.allclose(before, network(noisy, step), atol=1e-4)


def test_close_steps_have_similar_embeddings_and_no_two_the_same():
    embedded = time_embedding(torch.arange(1000), 64)
    assert embedded.shape == (1000, 64) and embedded.abs().max() <= 1
    distances = torch.cdist(embedded, embedded)
    assert (distances + 9 * torch.eye(1000)).min() > 0.1
    assert distances[500, 501] < distances[500, 510] < distances[500, 900]


def test_the_embedding_is_the_one_of_the_paper():
    (found,) = time_embedding(torch.tensor([7]), 4)
    expected = torch.tensor([7.0, 0.07]).double()
    torch.testing.assert_close(found.double(), torch.cat([expected.sin(), expected.cos()]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"side_px": 10}, "side_px=10 cannot be halved twice: use a multiple of 4 from 8 on"),
        ({"side_px": 4}, "side_px=4 cannot be halved twice"),
        ({"width": 0}, "width=0 makes no network"),
        ({"channels": 0}, "channels=0 makes no network"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        UNet(**{"channels": 1, "side_px": 8} | changes)
