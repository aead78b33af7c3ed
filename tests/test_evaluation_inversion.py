import pytest
import torch
from torch import nn

from course_lib.errors import InputError
from course_lib.evaluation.inversion import invert
from course_lib.models.semi_supervised_gan import Generator


def linear_generator():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))


def test_of_a_linear_generator_it_finds_the_solution_of_least_squares():
    generator = linear_generator()
    images = torch.randn(5, 1, 4, 4)  # which it cannot make
    found = invert(generator, images, latent_dim=3, steps=600)
    weight, bias = (value.detach() for value in generator[0].parameters())
    expected = torch.linalg.lstsq(weight, (images.flatten(1) - bias).T).solution.T
    torch.testing.assert_close(found.latents, expected, atol=1e-3, rtol=1e-3)
    errors = (images.flatten(1) - bias - expected @ weight.T).square().mean(dim=1)
    torch.testing.assert_close(found.errors, errors)
    torch.testing.assert_close(found.images, generator(found.latents).detach())


def test_it_finds_images_that_the_generator_has_made():
    torch.manual_seed(0)
    generator = Generator(channels=1, side_px=8, latent_dim=4)
    for _ in range(3):
        generator(torch.randn(50, 4))  # batch norm measures its statistics
    with torch.no_grad():
        images = generator.eval()(torch.randn(6, 4))
    found = invert(generator, images, latent_dim=4, steps=200, restarts=6)
    others = invert(generator, images.flip(2), latent_dim=4, steps=200, restarts=6)
    assert found.errors.median() < 1e-3 and found.errors.median() < 0.1 * others.errors.median()


def test_the_generator_and_the_random_state_are_left_as_they_were():
    generator = Generator(channels=1, side_px=8, latent_dim=4).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    state = torch.get_rng_state()
    invert(generator, torch.zeros(2, 1, 8, 8), latent_dim=4, steps=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert generator.training and all(weight.grad is None for weight in generator.parameters())
    assert all(weight.requires_grad for weight in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_more_starts_never_find_a_worse_image_and_each_image_gets_its_own_best():
    generator, images = linear_generator().append(nn.Tanh()), torch.rand(4, 1, 4, 4) - 0.5
    few = invert(generator, images, latent_dim=3, steps=5, restarts=1).errors
    many = invert(generator, images, latent_dim=3, steps=5, restarts=30).errors
    assert (many < few).all()


def test_steps_and_rate_are_used():
    generator, images = linear_generator(), torch.zeros(2, 1, 4, 4)
    plain = invert(generator, images, latent_dim=3, steps=5, seed=1).errors
    assert (invert(generator, images, latent_dim=3, steps=50, seed=1).errors < plain).all()
    slow = invert(generator, images, latent_dim=3, steps=5, seed=1, learning_rate=1e-3).errors
    assert (slow > plain).all()
    assert not torch.equal(invert(generator, images, latent_dim=3, steps=5, seed=2).latents, slow)


def test_what_cannot_be_inverted_is_refused():
    generator = linear_generator()
    with pytest.raises(InputError, match=r"images of shape \(1, 4, 4\), those to invert have \(1, 8, 8\)"):
        invert(generator, torch.zeros(2, 1, 8, 8), latent_dim=3)
    with pytest.raises(InputError, match="restarts=0"):
        invert(generator, torch.zeros(2, 1, 4, 4), latent_dim=3, restarts=0)
    with pytest.raises(InputError, match="and 0 images"):
        invert(generator, torch.zeros(0, 1, 4, 4), latent_dim=3)
