import torch

from course_lib.data.batches import ShuffledIndices


def test_every_index_comes_once_before_any_comes_again():
    order = ShuffledIndices(10, seed=0)
    drawn = torch.cat([order.batch(step, 4) for step in range(5)])  # two rounds of ten
    assert sorted(drawn[:10].tolist()) == list(range(10))
    assert sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_a_batch_depends_on_its_step_and_not_on_what_was_drawn_before():
    forward, backward = ShuffledIndices(10, seed=0), ShuffledIndices(10, seed=0)
    steps = [forward.batch(step, 4) for step in range(9)]
    for step in reversed(range(9)):
        assert torch.equal(backward.batch(step, 4), steps[step])


def test_a_batch_may_be_larger_than_the_set():
    assert torch.bincount(ShuffledIndices(20, seed=1).batch(3, 50), minlength=20).min() >= 2


def test_seeds_give_different_orders():
    assert not torch.equal(ShuffledIndices(100, seed=0).batch(0, 100), ShuffledIndices(100, seed=1).batch(0, 100))
