import pytest
import torch

from course_lib.data.labels import choose_labelled
from course_lib.errors import InputError
from course_lib.evaluation.linear_probe import linear_probe


def rings(count, seed):
    """Two rings, one in the other: no straight line parts them, the squared radius does."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    angles = torch.rand(count, generator=generator) * 6.2832
    radii = 1 + labels + 0.1 * torch.randn(count, generator=generator)
    return torch.stack([angles.cos(), angles.sin()], dim=1) * radii[:, None], labels


def squared(points):
    return torch.cat([points, points.square()], dim=1)


def test_features_that_part_the_classes_beat_those_that_do_not():
    (train, labels), (test, truth) = rings(400, 0), rings(300, 1)
    plain = linear_probe(train, labels, test, truth, count=60, seed=0)
    better = linear_probe(squared(train), labels, squared(test), truth, count=60, seed=0)
    assert plain < 0.65 and better > 0.98


def test_no_label_but_those_of_the_chosen_few_is_used():
    (train, labels), (test, truth) = rings(400, 0), rings(300, 1)
    train, test = squared(train), squared(test)
    labelled = choose_labelled(labels, 20, classes=2, seed=4)
    moved = torch.where(labelled[:, None], train, train + 100)  # of the others, not even the features are seen
    honest, changed = (linear_probe(these, labels, test, truth, count=20, seed=4) for these in (train, moved))
    assert honest == changed > 0.9


def test_the_scale_of_features_changes_nothing_and_pictures_are_flattened():
    (train, labels), (test, truth) = rings(200, 0), rings(200, 1)
    train, test, scale = squared(train), squared(test), torch.tensor([1e-3, 1.0, 50.0, 1e4])
    one = linear_probe(train, labels, test, truth, count=40, seed=3)
    other = linear_probe((train * scale).view(-1, 1, 2, 2), labels, (test * scale).view(-1, 1, 2, 2), truth,
                         count=40, seed=3)  # fmt: skip
    assert one == pytest.approx(other, abs=0.01)


def test_another_seed_takes_other_images():
    (train, labels), (test, truth) = rings(400, 0), rings(300, 1)
    found = {linear_probe(train, labels, test, truth, count=6, seed=seed) for seed in range(5)}
    assert len(found) > 1


def test_what_cannot_be_learnt_is_refused():
    train, labels = rings(40, 0)
    with pytest.raises(InputError, match="count=4 labels are too few .* at least 6"):
        linear_probe(train, labels, train, labels, count=4, seed=0)
    with pytest.raises(InputError, match="labels=7 cannot be shared equally"):
        linear_probe(train, labels, train, labels, count=7, seed=0)
    with pytest.raises(InputError, match="not finite"):
        linear_probe(train / 0, labels, train, labels, count=6, seed=0)
