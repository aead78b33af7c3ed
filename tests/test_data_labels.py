import pytest
import torch

from course_lib.data.labels import choose_labelled
from course_lib.errors import InputError

LABELS = torch.arange(200) % 10


def test_every_class_keeps_the_same_number_of_labels():
    mask = choose_labelled(LABELS, 50, classes=10, seed=3)
    assert mask.dtype == torch.bool
    assert torch.bincount(LABELS[mask], minlength=10).tolist() == [5] * 10


def test_the_seed_alone_decides_who_is_labelled():
    first = choose_labelled(LABELS, 50, classes=10, seed=3)
    torch.rand(7)
    assert torch.equal(first, choose_labelled(LABELS, 50, classes=10, seed=3))
    assert not torch.equal(first, choose_labelled(LABELS, 50, classes=10, seed=4))


def test_choosing_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    choose_labelled(LABELS, 50, classes=10, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_all_may_keep_their_label():
    assert choose_labelled(LABELS, 200, classes=10, seed=0).all()


@pytest.mark.parametrize(
    "count, message",
    [
        (7, "labels=7 .*10 classes.*for example 10"),
        (55, "labels=55 .*for example 50 or 60"),
        (0, "labels=0"),
        (210, "labels=210 asks for 21 .*smallest class .* has 20: use at most 200"),
    ],
)
def test_a_number_that_does_not_fit_is_named_with_one_that_does(count, message):
    with pytest.raises(InputError, match=message):
        choose_labelled(LABELS, count, classes=10, seed=0)
