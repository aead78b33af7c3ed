import math
from functools import partial

import pytest
import torch

from course_lib.data.toy import GaussianMixture, TwoMoons, grid, ring
from course_lib.errors import InputError

OVERLAPPING = GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 0.5], [-1.0, 0.5]]), 0.6)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_ring_is_the_usual_one():
    centres = ring().centres
    assert torch.allclose(centres.norm(dim=1), torch.tensor(2.0)) and ring().std == 0.02
    half = math.sqrt(2)
    expected = torch.tensor(
        [[2, 0], [half, half], [0, 2], [-half, half], [-2, 0], [-half, -half], [0, -2], [half, -half]]
    )
    assert torch.allclose(centres, expected, atol=1e-6)


def test_the_grid_is_the_usual_one():
    centres = grid().centres
    assert centres.tolist() == [[x, y] for y in (-4, -2, 0, 2, 4) for x in (-4, -2, 0, 2, 4)] and grid().std == 0.05
    assert grid(side=2, spacing=1.0).centres.tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    "mixture, edge",
    [(OVERLAPPING, 6.0), (ring(std=0.1), 3.0), (ring(), 2.2), (grid(), 4.4)],
    ids=["three", "wide", "ring", "grid"],
)
def test_the_density_integrates_to_one(mixture, edge):
    along = torch.linspace(-edge, edge, 801, dtype=torch.float64)
    cell = float(along[1] - along[0]) ** 2
    rows = (torch.stack(torch.meshgrid(along, y, indexing="ij"), dim=-1).flatten(0, 1) for y in along.split(100))
    total = sum(mixture.log_density(points).exp().sum() * cell for points in rows)
    assert abs(total - 1) < 1e-3


def test_the_slope_of_the_log_density_is_the_closed_form():
    points = torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(OVERLAPPING.log_density(points).sum(), points)
    towards = OVERLAPPING.centres.double() - points[:, None]  # (50, 3, 2)
    responsibility = (-towards.square().sum(2) / (2 * 0.6**2)).softmax(dim=1)
    assert torch.allclose(slope, (responsibility[..., None] * towards).sum(1) / 0.6**2, atol=1e-12)


def test_the_log_density_far_from_every_mode_is_exact():
    far = torch.tensor([[12.0, 0.0]], dtype=torch.float64)  # 500 standard deviations from mode 0
    expected = -(500**2) / 2 - math.log(2 * math.pi * 0.02**2 * 8)
    assert ring().log_density(far).item() == pytest.approx(expected, rel=1e-9)


TOYS = {"ring": ring(), "grid": grid(), "moons": TwoMoons(), "moons without noise": TwoMoons(noise_std=0.0)}


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)
def test_points_are_float32_and_from_the_global_random_state(toy):
    def draw():
        labels = torch.zeros(7, dtype=torch.long)
        return [toy.sample(7), toy.sample_of(labels), toy.sample_of(labels)]

    first = draw()
    assert all(points.shape == (7, 2) and points.dtype == torch.float32 for points in first)
    assert not torch.equal(first[1], first[2])
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(first, draw(), strict=True))


@pytest.mark.parametrize("mixture", [ring(), grid()], ids=["ring", "grid"])
def test_every_mode_has_its_share_and_three_standard_deviations_hold_nearly_all(mixture):
    count = 40_000
    found = mixture.modes_of(mixture.sample(count))
    share = torch.bincount(found[found >= 0], minlength=mixture.modes) / count
    one = (1 - math.exp(-4.5)) / mixture.modes
    assert (share - one).abs().max() < 5 * math.sqrt(one / count)
    assert (found == -1).float().mean().item() == pytest.approx(math.exp(-4.5), abs=0.003)


def test_the_spread_of_a_mode_is_the_given_one():
    points = OVERLAPPING.sample_of(torch.full((40_000,), 1))
    assert torch.allclose(points.mean(0), torch.tensor([1.0, 0.5]), atol=0.015)
    assert torch.allclose(points.T.cov(), 0.36 * torch.eye(2), atol=0.015)


@pytest.mark.parametrize("mixture", [ring(), grid()], ids=["ring", "grid"])
def test_a_label_hits_its_mode(mixture):
    labels = torch.randint(mixture.modes, (500,))
    assert torch.equal(mixture.modes_of(mixture.sample_of(labels), within_stds=6), labels)


def test_a_point_belongs_to_the_nearest_mode_or_to_none():
    centre = ring().centres[3]
    at = torch.stack([centre + torch.tensor([0.02 * stds, 0.0]) for stds in (0, 2.9, 3.1, 5)])
    assert ring().modes_of(at).tolist() == [3, 3, -1, -1]
    assert ring().modes_of(at, within_stds=4).tolist() == [3, 3, 3, -1]
    assert OVERLAPPING.modes_of(torch.tensor([[0.9, 0.4], [0.1, 0.1]])).tolist() == [1, 0]  # within reach of both


def test_modes_covered_counts_modes_and_not_points():
    points = ring().centres[[0, 0, 0, 5, 5, 7]]
    stray = torch.zeros(9, 2)
    assert ring().modes_covered(torch.cat([points, stray])) == 3
    assert ring().modes_covered(points, at_least=2) == 2
    assert ring().modes_covered(points + 0.1, within_stds=8) == 3
    assert ring().modes_covered(stray) == 0


def test_moons_without_noise_are_half_circles():
    labels = torch.arange(2000) % 2
    points = TwoMoons(noise_std=0.0).sample_of(labels)
    upper, lower = points[labels == 0], points[labels == 1]
    assert torch.allclose(upper.norm(dim=1), torch.tensor(1.0)) and (upper[:, 1] >= -1e-6).all()
    assert torch.allclose((lower - torch.tensor([1.0, 0.5])).norm(dim=1), torch.tensor(1.0), atol=1e-6)
    assert (lower[:, 1] <= 0.5 + 1e-6).all()
    angles = torch.atan2(upper[:, 1], upper[:, 0])
    assert (angles < math.pi / 4).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_noise_blurs_the_moons():
    labels = torch.zeros(20_000, dtype=torch.long)
    off = TwoMoons(noise_std=0.05).sample_of(labels).norm(dim=1) - 1
    assert off.std().item() == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(
    "make, message",
    [
        (partial(ring, modes=0), "modes=0 .*at least 1"),
        (partial(ring, radius=-1.0), "radius=-1.0 .*positive finite"),
        (partial(ring, std=0.0), "std=0.0 .*positive finite"),
        (partial(grid, std=math.nan), "std=nan .*positive finite"),
        (partial(grid, side=0), "side=0 .*at least 1"),
        (partial(grid, spacing=math.inf), "spacing=inf .*positive finite"),
        (partial(GaussianMixture, torch.zeros(0, 2), 1.0), "0 centres.*at least 1"),
        (partial(TwoMoons, noise_std=-0.1), "noise_std=-0.1.*0 or more"),
        (partial(TwoMoons, noise_std=math.nan), "noise_std=nan.*0 or more"),
        (partial(ring().sample, 0), "count=0 .*at least 1"),
        (partial(TwoMoons().sample, -3), "count=-3 .*at least 1"),
        (partial(ring().sample_of, torch.tensor([0, 8])), "label 8 .*0 to 7"),
        (partial(ring().sample_of, torch.tensor([-1])), "label -1 .*0 to 7"),
        (partial(TwoMoons().sample_of, torch.tensor([2])), "label 2 .*0 to 1"),
        (partial(ring().modes_of, torch.zeros(1, 2), within_stds=0), "within_stds=0 .*positive finite"),
        (partial(ring().modes_covered, torch.zeros(1, 2), at_least=0), "at_least=0 .*1 or more"),
    ],
)
def test_what_cannot_be_is_named_with_what_can(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_record_can_say_which_mixture_it_was_measured_on():
    assert ring().form._asdict() == {"channels": 2, "side_px": 1, "classes": 8}
    assert ring().sha256() == ring().sha256() and len(ring().sha256()) == 64
    assert len({one.sha256() for one in (ring(), grid(), ring(std=0.1), ring(radius=1.0))}) == 4
