import pytest
import torch
from torch import nn

from course_lib.errors import InputError
from course_lib.models.autoencoder import Autoencoder, Decoder, Encoder, sides

SIZES = [(1, 8), (1, 28), (3, 16), (2, 9)]


@pytest.mark.parametrize("channels, side_px", SIZES)
@pytest.mark.parametrize("pooling", [True, False])
def test_an_encoder_and_a_decoder_fit_pictures_of_any_channels_and_side(channels, side_px, pooling):
    sizes = {"channels": channels, "side_px": side_px, "latent_dim": 5, "width": 3}
    images = torch.rand(4, channels, side_px, side_px) * 2 - 1
    latent = Encoder(**sizes, pooling=pooling)(images)
    assert latent.shape == (4, 5) and Decoder(**sizes)(latent).shape == images.shape


@pytest.mark.parametrize("channels, side_px", SIZES)
def test_an_autoencoder_answers_with_pictures_of_the_same_form_in_range(channels, side_px):
    network = Autoencoder(channels=channels, side_px=side_px, latent_dim=3, width=2)
    images = 50 * torch.randn(4, channels, side_px, side_px)
    made = network(images)
    assert made.shape == images.shape and made.abs().max() <= 1
    assert torch.equal(made, network.decoder(network.encoder(images)))


def test_the_convolutions_have_the_plans_channels_and_the_decoder_mirrors_them():
    network = Autoencoder(channels=1, side_px=28, latent_dim=32)
    channels = [
        [(layer.in_channels, layer.out_channels) for layer in part.modules() if isinstance(layer, nn.Conv2d)]
        for part in (network.encoder, network.decoder)
    ]
    assert channels[0] == [(1, 16), (16, 32), (32, 64), (64, 128)]
    assert channels[1] == [(b, a) for a, b in reversed(channels[0])]
    assert sides(28) == [28, 14, 7, 4] and sides(8) == [8, 4, 2, 1]


def test_global_average_pooling_leaves_one_number_a_map():
    pooled, whole = (
        Encoder(channels=1, side_px=28, latent_dim=2, pooling=pooling).layers[-1].in_features
        for pooling in (True, False)
    )
    assert (pooled, whole) == (128, 128 * 4 * 4)


def test_the_latent_vector_is_all_that_the_decoder_sees():
    """A network that let a picture past its bottleneck would repeat it however small the latent vector is."""
    network = Autoencoder(channels=1, side_px=8, latent_dim=1, width=2).eval()
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    network.encoder.layers[-1].weight.data.zero_()
    made = network(images)
    assert torch.allclose(made, made[:1].expand_as(made))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"side_px": 7}, "side_px=7 cannot be halved three times: use at least 8"),
        ({"latent_dim": 0}, "latent_dim=0 makes no network"),
        ({"width": 0}, "width=0 makes no network"),
        ({"channels": 0}, "channels=0 makes no network"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Autoencoder(**{"channels": 1, "side_px": 8, "latent_dim": 2} | changes)
