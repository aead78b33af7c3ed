import math

import pytest
import torch

from course_lib.errors import InputError
from course_lib.losses.diffusion import NoiseSchedule, cosine_schedule, simple_loss


def test_the_cosine_schedule_falls_as_in_the_paper():
    alpha_bars = cosine_schedule(1000).alpha_bars

    def wave(step):
        return math.cos((step / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for step in (1, 250, 500, 900):
        assert alpha_bars[step - 1].item() == pytest.approx(wave(step) / wave(0), rel=1e-4)
    assert (alpha_bars.diff() < 0).all() and 0.999 < alpha_bars[0] < 1 and 0 < alpha_bars[-1] < 1e-6


def test_no_step_takes_more_than_all_but_a_thousandth():
    alpha_bars = cosine_schedule(50).alpha_bars
    assert alpha_bars[-1].item() == pytest.approx(alpha_bars[-2].item() / 1000, rel=1e-3)


def test_noise_added_in_one_go_is_noise_added_step_by_step():
    schedule = cosine_schedule(20)
    torch.manual_seed(0)
    image, count = 0.6, 200_000
    walked = torch.full((count,), image)
    before = torch.cat([torch.ones(1), schedule.alpha_bars[:-1]])
    for alpha in (schedule.alpha_bars / before)[:9]:
        walked = alpha.sqrt() * walked + (1 - alpha).sqrt() * torch.randn(count)
    at_once = schedule.add_noise(
        torch.full((count, 1), image), torch.randn(count, 1), torch.full((count,), 8, dtype=torch.int64)
    )
    assert at_once.mean().item() == pytest.approx(walked.mean().item(), abs=0.01)
    assert at_once.std().item() == pytest.approx(walked.std().item(), abs=0.01)


def test_each_picture_gets_the_noise_of_its_own_step():
    schedule = NoiseSchedule(torch.tensor([0.64, 0.36]))
    images, noise = torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 10.0)
    found = schedule.add_noise(images, noise, torch.tensor([0, 1, 0]))
    assert found[:, 0, 0, 0].tolist() == pytest.approx([0.8 + 6.0, 0.6 + 8.0, 0.8 + 6.0], rel=1e-6)


def test_removing_the_noise_gives_the_pictures_back():
    schedule = cosine_schedule(100)
    torch.manual_seed(0)
    images, noise, step = torch.rand(5, 1, 3, 3), torch.randn(5, 1, 3, 3), torch.tensor([0, 10, 50, 80, 90])
    noisy = schedule.add_noise(images, noise, step)
    torch.testing.assert_close(schedule.remove_noise(noisy, noise, step), images, atol=1e-4, rtol=1e-4)


def test_a_network_that_sees_no_noise_has_a_loss_of_one_and_a_perfect_one_of_zero():
    noise = torch.randn(100, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    assert simple_loss(torch.zeros_like(noise), noise).item() == pytest.approx(1, abs=0.02)
    assert simple_loss(noise, noise).item() == 0


def test_the_slope_of_the_loss_is_pinned():
    guess = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    simple_loss(guess, torch.tensor([[0.0, 5.0]], dtype=torch.float64)).backward()
    assert guess.grad.tolist() == [[1.0, -3.0]]


def test_a_schedule_of_one_step_is_refused():
    with pytest.raises(InputError, match="steps=1 make no schedule: use at least 2"):
        cosine_schedule(1)
