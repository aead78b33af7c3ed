import pytest
import torch

from course_lib.errors import InputError
from course_lib.losses.diffusion import cosine_schedule
from course_lib.training.diffusion import ddim_sample, ddpm_sample

SCHEDULE = cosine_schedule(200)
MEAN, STD = -0.2, 0.15


def noise_in_a_gaussian(noisy, step):
    """What the best network would see where every pixel of the data is drawn from N(MEAN, STD^2)."""
    of_image, of_noise = SCHEDULE.shares(step, noisy)
    return of_noise * (noisy - of_image * MEAN) / (of_image**2 * STD**2 + of_noise**2)


@pytest.fixture
def start():
    return torch.randn(2000, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name, off", [("ddpm", 0.05), ("ddim, all steps", 0.05), ("ddim, 30 steps", 0.2)])
def test_with_the_best_network_the_pictures_have_the_distribution_of_the_data(start, name, off):
    if name == "ddpm":
        drawn = ddpm_sample(noise_in_a_gaussian, SCHEDULE, start, generator=torch.Generator().manual_seed(1))
    else:
        drawn = ddim_sample(noise_in_a_gaussian, SCHEDULE, start, evaluations=200 if "all" in name else 30)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert drawn.std().item() == pytest.approx(STD, rel=off)
    pixels = drawn.flatten(start_dim=1)
    assert (torch.corrcoef(pixels.T) - torch.eye(4)).abs().max() < 0.1


def test_ddim_is_a_function_of_its_start_and_ddpm_is_not(start):
    one, same = (ddim_sample(noise_in_a_gaussian, SCHEDULE, start, evaluations=5) for _ in range(2))
    assert torch.equal(one, same)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    one, same, other = (ddpm_sample(noise_in_a_gaussian, SCHEDULE, start, generator=each) for each in generators)
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("evaluations, expected", [(1, [199]), (3, [199, 100, 0]), (200, list(range(199, -1, -1)))])
def test_ddim_visits_so_many_steps_from_the_last_to_the_first(evaluations, expected):
    visited = []

    def note(noisy, step):
        visited.append(step.unique().item())
        return torch.zeros_like(noisy)

    ddim_sample(note, SCHEDULE, torch.zeros(2, 1, 2, 2), evaluations=evaluations)
    assert visited == pytest.approx(expected, abs=1)


def test_ddpm_visits_every_step_once():
    visited = []
    ddpm_sample(lambda noisy, step: visited.append(step.unique().item()) or noisy, SCHEDULE, torch.zeros(2, 1, 2, 2))
    assert visited == list(range(199, -1, -1))


@pytest.mark.parametrize("draw", [ddpm_sample, ddim_sample])
def test_pictures_stay_in_range_whatever_the_network_says(draw):
    drawn = draw(lambda noisy, step: 100 * torch.randn_like(noisy), SCHEDULE, torch.randn(20, 1, 3, 3))
    assert drawn.shape == (20, 1, 3, 3) and drawn.abs().max() <= 1


@pytest.mark.parametrize("evaluations", [0, 201])
def test_passes_that_the_schedule_has_not_are_refused(evaluations):
    with pytest.raises(InputError, match=f"evaluations={evaluations} cannot be spread over 200 steps: use 1 to 200"):
        ddim_sample(noise_in_a_gaussian, SCHEDULE, torch.zeros(1, 1, 2, 2), evaluations=evaluations)
