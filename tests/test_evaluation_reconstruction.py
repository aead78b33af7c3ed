import math

import pytest
import torch

from course_lib.evaluation.reconstruction import mean_squared_errors, psnr


def test_errors_are_those_of_pixels_from_0_to_1_one_for_each_picture():
    images = -torch.ones(3, 1, 2, 2)
    made = images.clone()
    made[1] += 2.0  # black made white: an error of 1
    made[2, 0, 0, 0] += 1.0  # one of four pixels off by a half
    assert mean_squared_errors(images, made).tolist() == [0.0, 1.0, 0.0625]


@pytest.mark.parametrize("off, decibels", [(2.0, 0.0), (0.2, 20.0), (0.02, 40.0)])
def test_a_tenth_of_the_range_is_twenty_decibels(off, decibels):
    images = torch.zeros(2, 1, 3, 3)
    assert psnr(images, images + off) == pytest.approx(decibels, abs=1e-3)


def test_decibels_and_mean_error_say_the_same():
    images, made = torch.rand(2, 20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    error = mean_squared_errors(images, made).mean().item()
    assert psnr(images, made) == pytest.approx(-10 * math.log10(error), abs=1e-4)


def test_nothing_lost_is_infinitely_good():
    assert psnr(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) == math.inf
