import pytest
import torch

from course_lib.data.images import digits, to_unit_range
from course_lib.data.pairs import TASKS, coarse, left_half, moved
from course_lib.errors import InputError


@pytest.fixture
def some():
    return to_unit_range(digits().test_images[:20])


def test_the_right_half_is_hidden_and_the_left_one_is_as_it_was(some):
    before = some.clone()
    given = left_half(some)
    assert torch.equal(given[..., :4], some[..., :4]) and (given[..., 4:] == 0).all()
    assert torch.equal(some, before)


def test_a_coarse_image_has_the_mean_of_each_square(some):
    given = coarse(some)
    assert given.shape == some.shape and torch.allclose(given[:, 0, :4, 4:], some[:, 0, :4, 4:].mean((1, 2), True))
    assert torch.allclose(given.mean((1, 2, 3)), some.mean((1, 2, 3)), atol=1e-6)
    with pytest.raises(InputError, match="images of 6 px cannot be made 4 times as coarse"):
        coarse(torch.zeros(1, 1, 6, 6))


def test_an_image_moves_sideways_and_back(some):
    assert torch.equal(moved(some, 1)[..., 2:], some[..., :6]) and (moved(some, 1)[..., :2] == -1).all()
    assert torch.equal(moved(some, -1)[..., :6], some[..., 2:]) and (moved(some, -1)[..., 6:] == -1).all()
    assert torch.equal(moved(some, 0), some)
    assert torch.equal(moved(moved(some, 1), -1)[..., :6], some[..., :6])


def test_the_next_frame_has_two_right_answers_and_the_nearer_one_counts(some):
    task = TASKS["next_frame"]
    assert torch.equal(task.given(some), some)
    answers = task.answers(some)
    assert answers.shape == (2, 20, 1, 8, 8)
    drawn = torch.cat([answers[0, :10], answers[1, 10:]])
    error, back = task.nearest(drawn, some)
    assert error.shape == (20,) and (error == 0).all()
    assert torch.equal(back[..., 2:6], some[..., 2:6])
    ghost, _ = task.nearest(answers.mean(dim=0), some)
    assert (ghost > 0.01).all()


@pytest.mark.parametrize("name", ["half", "super_resolution"])
def test_other_tasks_have_one_right_answer(name, some):
    error, back = TASKS[name].nearest(some + 0.1, some)
    assert torch.equal(TASKS[name].answers(some)[0], some) and len(TASKS[name].answers(some)) == 1
    assert torch.allclose(error, torch.full((20,), 0.01), atol=1e-6) and torch.equal(back, some + 0.1)
