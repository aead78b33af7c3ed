import pytest
import torch

from course_lib.errors import InputError
from course_lib.models import dcgan
from course_lib.models.conditional_gan import (
    Embedding,
    EmbeddingDiscriminator,
    Generator,
    ProjectionDiscriminator,
)

PLAN = {"channels": 1, "side_px": 8, "attributes": (3, 2), "width": 4}
CONDITION = torch.tensor([[0, 0], [2, 1], [1, 0]])


def test_the_vector_of_a_condition_is_the_sum_of_those_of_its_attributes():
    embedding = Embedding((3, 2), 5)
    found = embedding(CONDITION)
    tables = [table.weight for table in embedding.vectors]
    assert found.shape == (3, 5)
    assert torch.equal(found[1], tables[0][2] + tables[1][1])


def test_a_class_alone_may_stand_without_its_column():
    embedding = Embedding((3,), 5)
    assert torch.equal(embedding(torch.tensor([2, 0])), embedding(torch.tensor([[2], [0]])))


def test_vectors_begin_with_the_standard_deviation_that_was_asked_for():
    assert Embedding((2000,), 10, std=0.3).vectors[0].weight.std().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("side_px", [8, 28])
@pytest.mark.parametrize("kind", [EmbeddingDiscriminator, ProjectionDiscriminator])
def test_images_and_logits_have_the_asked_form(kind, side_px):
    plan = PLAN | {"side_px": side_px}
    images = Generator(**plan, latent_dim=7, embedding_dim=5)(100 * torch.randn(3, 7), CONDITION)
    assert images.shape == (3, 1, side_px, side_px) and images.abs().max() <= 1
    assert kind(**plan)(images, CONDITION).shape == (3,)


def test_the_generator_is_dcgans_with_the_conditions_vector_beside_the_latent_one():
    generator, latent = Generator(**PLAN, latent_dim=7, embedding_dim=5), torch.randn(3, 7)
    assert isinstance(generator.network, dcgan.Generator) and generator.network.latent_dim == 12
    beside = torch.cat([latent, generator.embedding(CONDITION)], dim=1)
    assert torch.equal(generator(latent, CONDITION), generator.network(beside))


def test_the_embedding_discriminator_sees_the_condition_as_one_channel_more():
    network, images = EmbeddingDiscriminator(**PLAN), torch.randn(3, 1, 8, 8)
    channel = network.embedding(CONDITION).reshape(3, 1, 8, 8)
    assert torch.equal(network(images, CONDITION), network.network(torch.cat([images, channel], dim=1)))


def test_the_projection_is_the_inner_product_of_the_conditions_vector_and_the_features():
    """Miyato and Koyama (2018), section 3, written out for each image in float64."""
    network, images = ProjectionDiscriminator(**PLAN).double(), torch.randn(3, 1, 8, 8).double()
    features = network.network.layers[:-1](images)
    for logit, feature, (first, second) in zip(network(images, CONDITION), features, CONDITION, strict=True):
        vector = network.embedding.vectors[0].weight[first] + network.embedding.vectors[1].weight[second]
        last = network.network.layers[-1]
        expected = last.weight[0] @ feature + last.bias[0] + vector @ feature
        assert logit.item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("kind", [EmbeddingDiscriminator, ProjectionDiscriminator])
def test_every_weight_learns_and_the_logit_depends_on_the_condition(kind):
    network, images = kind(**PLAN), torch.randn(6, 1, 8, 8)
    conditions = torch.tensor([[digit, more] for digit in range(3) for more in range(2)])
    logits = network(images, conditions)
    logits.square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in network.parameters())
    assert not torch.allclose(network(images, conditions.flip(0)), logits, atol=1e-4)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"attributes": ()}, "attributes=\\(\\)"),
        ({"attributes": (3, 0)}, "attributes=\\(3, 0\\)"),
        ({"width": 0}, "width=0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Generator(**PLAN | wrong)


def test_conditions_of_another_number_of_attributes_are_refused():
    with pytest.raises(InputError, match="found conditions of 3 attributes: this network knows 2"):
        Generator(**PLAN, latent_dim=2)(torch.randn(1, 2), torch.zeros(1, 3, dtype=torch.int64))
