import pytest
import torch
from torch import nn

from course_lib import runtime
from course_lib.models.semi_supervised_gan import Generator
from course_lib.training.samples import drawing, fixed_latents


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Generator(channels=1, side_px=8, latent_dim=5)


def test_latents_depend_on_their_seed_alone():
    before = torch.get_rng_state()
    first, again, other = fixed_latents(4, 3, 1), fixed_latents(4, 3, 1), fixed_latents(4, 3, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (4, 3) and torch.equal(first, again) and not torch.equal(first, other)


def test_what_is_drawn_is_what_the_generator_makes_in_use(generator):
    latents = fixed_latents(4, 5, 1)
    images = drawing(generator, latents)()
    assert torch.equal(images, generator.eval()(latents)) and not images.requires_grad
    assert images.shape == (4, 1, 8, 8) and images.abs().max() <= 1


def test_drawing_leaves_modes_and_statistics_as_they_were(generator):
    draw = drawing(generator, fixed_latents(4, 5, 1))
    generator.layers[2].eval()  # somebody froze the statistics of one layer
    modes = [layer.training for layer in generator.modules()]
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    draw()
    assert [layer.training for layer in generator.modules()] == modes and len(set(modes)) == 2
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())


def test_modes_are_put_back_when_drawing_fails(generator):
    with pytest.raises(RuntimeError):
        drawing(nn.Sequential(generator), fixed_latents(4, 7, 1))()
    assert all(layer.training for layer in generator.modules())


def test_images_are_drawn_in_float32_while_training_computes_in_bfloat16(generator, monkeypatch):
    latents = fixed_latents(4, 5, 1)
    expected = drawing(generator, latents)()
    monkeypatch.setattr(runtime, "bfloat16_is_native", lambda: True)
    prepared = runtime.start(0, "bfloat16", None).prepare(generator)
    assert torch.equal(drawing(generator, latents)(), expected)
    assert not torch.equal(prepared.eval()(latents), expected)
