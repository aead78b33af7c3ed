import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KDTree

from course_lib.errors import InputError
from course_lib.evaluation import neighbours
from course_lib.evaluation.neighbours import nearest_neighbours, neighbour_scores


def samples(count=60, features=3, apart=0.7):
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(count, features, generator=generator)
    return real, torch.randn(count, features, generator=generator) * 0.6 + apart


def by_hand(real, fake, k):
    """Return the scores by the definitions, pair by pair, with distances from a tree."""
    real, fake = real.double().numpy(), fake.double().numpy()
    real_radii, fake_radii = (KDTree(sample).query(sample, k + 1)[0][:, -1] for sample in (real, fake))
    precise, dense, recalled, covered = 0, 0, 0, 0
    for one in fake:
        balls = sum(math.dist(one, other) <= radius for other, radius in zip(real, real_radii, strict=True))
        precise, dense = precise + (balls > 0), dense + balls
    for one, own in zip(real, real_radii, strict=True):
        distances = [math.dist(one, other) for other in fake]
        recalled += any(d <= radius for d, radius in zip(distances, fake_radii, strict=True))
        covered += min(distances) <= own
    return np.array([precise, recalled, dense / k, covered]) / len(real)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_scores_are_those_of_the_definitions(k, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 7)  # which does not divide the 60 images
    assert neighbour_scores(*samples(), k=k) == pytest.approx(by_hand(*samples(), k))


def test_four_points_on_a_line_give_the_scores_that_one_can_count():
    real, fake = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.tensor([[0.5], [0.5], [9.0], [50.0]])
    # Balls of real images: radius 1, 1, 1 and 8; of fakes: 0, 0, 8.5 and 41.
    scores = neighbour_scores(real, fake, k=1)
    assert scores.precision == 3 / 4  # 50 lies in no ball
    assert scores.density == (2 + 2 + 1) / 4  # in those of 0 and 1, twice, and in that of 10
    assert scores.coverage == 3 / 4  # no fake is as near to 2 as 1
    assert scores.recall == 3 / 4  # 1, 2 and 10 lie in the ball of 9, or in that of 50


def test_two_samples_of_one_source_have_the_expected_density_and_coverage():
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(1500, 4, generator=generator) for _ in range(2))
    scores = neighbour_scores(real, fake, k=3)
    # The k + 1 nearest of 2n - 1 images: all of the first k are real with probability (n-1)…(n-k) / (2n-1)…(2n-k).
    n = len(real)
    missed = math.prod((n - 1 - i) / (2 * n - 1 - i) for i in range(3))
    assert scores.coverage == pytest.approx(1 - missed, abs=0.02)
    assert scores.density == pytest.approx(1, abs=0.05)


def test_lost_variety_lowers_recall_and_coverage_and_lost_quality_precision_and_density():
    generator = torch.Generator().manual_seed(1)
    real, good = (torch.randn(500, 2, generator=generator) for _ in range(2))
    same, narrow, wide = (neighbour_scores(real, good * scale) for scale in (1, 0.1, 5))
    assert narrow.recall < 0.2 < 0.8 < same.recall and narrow.coverage < 0.5 * same.coverage
    assert narrow.precision > 0.95
    assert wide.precision < 0.4 < 0.8 < same.precision and wide.density < 0.4 * same.density
    assert wide.recall > 0.9


def test_neighbours_are_the_nearest_in_order_with_their_distances():
    generator = torch.Generator().manual_seed(0)
    training, fakes = torch.rand(50, 1, 4, 4, generator=generator), torch.rand(7, 1, 4, 4, generator=generator)
    found = nearest_neighbours(fakes, training, count=3)
    distances = (fakes[:, None] - training[None]).flatten(2).norm(dim=2)
    expected = distances.sort(dim=1)
    assert torch.equal(found.indices, expected.indices[:, :3])
    torch.testing.assert_close(found.distances, expected.values[:, :3])


def test_a_copy_has_distance_0():
    training = torch.rand(50, 9, generator=torch.Generator().manual_seed(0)) + 100
    found = nearest_neighbours(training[[3, 8]], training)
    assert found.indices.flatten().tolist() == [3, 8] and found.distances.max() < 1e-3


def test_what_cannot_be_compared_is_refused():
    some = torch.zeros(5, 2)
    with pytest.raises(InputError, match="found 5 real and 4 fake"):
        neighbour_scores(some, some[:4])
    with pytest.raises(InputError, match="k=5 neighbours cannot be found among 5 images: use 1 to 4"):
        neighbour_scores(some, some, k=5)
    with pytest.raises(InputError, match="found fake values that are not finite"):
        neighbour_scores(some, some / 0, k=1)
    with pytest.raises(InputError, match="count=6 neighbours .* use 1 to 5"):
        nearest_neighbours(some, some, count=6)
    with pytest.raises(InputError, match="found training values that are not finite"):
        nearest_neighbours(some, some / 0)
