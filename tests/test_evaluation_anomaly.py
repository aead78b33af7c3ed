import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from course_lib.errors import InputError
from course_lib.evaluation.anomaly import (
    auc,
    expected_cost,
    precision_at_prevalence,
    precision_recall,
    roc,
    threshold_at,
)

SCORES = torch.tensor([0.1, 0.4, 0.35, 0.8])
ODD = torch.tensor([False, False, True, True])


def gaussians(count, apart, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2 * count, generator=generator)
    odd = torch.arange(2 * count) >= count
    return scores + apart * odd, odd


def test_the_roc_curve_of_four_scores_is_the_one_by_hand():
    curve = roc(SCORES, ODD)
    assert curve.thresholds.tolist() == pytest.approx([float("inf"), 0.8, 0.4, 0.35, 0.1])
    assert curve.true_positive_rate.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]


def test_precision_and_recall_of_four_scores_are_those_by_hand():
    curve = precision_recall(SCORES, ODD)
    assert curve.thresholds.tolist() == pytest.approx([0.8, 0.4, 0.35, 0.1])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.recall.tolist() == [0.5, 0.5, 1, 1]


def test_the_area_is_the_share_of_pairs_in_the_right_order_and_a_tie_counts_half():
    assert auc(SCORES, ODD).value == 0.75
    assert auc(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([True, False, False])).value == 0.5


def test_the_interval_is_that_of_scikit_learns_area_on_samples_drawn_anew():
    scores, odd = gaussians(30, 1.0)
    scores = scores.round(decimals=1)  # some ties
    random, areas = np.random.default_rng(1), []
    for _ in range(400):
        drawn = np.concatenate([random.choice(np.flatnonzero(odd == kind), 30) for kind in (False, True)])
        areas.append(roc_auc_score(odd.numpy()[drawn], scores.numpy()[drawn]))
    found = auc(scores, odd, resamples=4000)
    assert [found.low, found.high] == pytest.approx(np.quantile(areas, [0.025, 0.975]).tolist(), abs=0.02)
    assert found.value == roc_auc_score(odd.numpy(), scores.numpy())


def test_an_interval_holds_the_true_area_about_as_often_as_its_level_says():
    true = torch.special.ndtr(torch.tensor(1 / 2**0.5)).item()  # of two normal distributions 1 apart
    intervals = [auc(*gaussians(60, 1.0, seed), resamples=300, level=0.8) for seed in range(150)]
    assert 0.7 < np.mean([low < true < high for _, low, high in intervals]) < 0.88


def test_the_interval_depends_on_the_seed_alone():
    scores, odd = gaussians(20, 0.5)
    assert auc(scores, odd, seed=1) == auc(scores, odd, seed=1) != auc(scores, odd, seed=2)


def test_a_threshold_calls_no_more_normal_pictures_odd_than_it_may():
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    for rate in (0.001, 0.01, 0.05, 0.5):
        called = (scores >= threshold_at(scores, false_positive_rate=rate)).double().mean().item()
        assert called == pytest.approx(rate)


def test_tied_scores_are_called_together_or_not_at_all():
    scores = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0])
    assert [threshold_at(scores, false_positive_rate=rate) for rate in (0.1, 0.25, 0.3, 0.69, 0.7)] == [3, 3, 2, 2, 1]
    with pytest.raises(InputError, match="largest score comes 4 times"):
        threshold_at(torch.ones(4), false_positive_rate=0.5)


def test_what_is_rare_drowns_in_false_alarms():
    assert precision_at_prevalence(0.9, 0.01, 0.001) == pytest.approx(0.0009 / (0.0009 + 0.00999))
    assert precision_at_prevalence(0.5, 0.5, 0.3) == pytest.approx(0.3)
    assert precision_at_prevalence(0.2, 0.0, 0.001) == 1
    assert np.isnan(precision_at_prevalence(0.0, 0.0, 0.5))
    curve = roc(SCORES, ODD)
    found = precision_at_prevalence(curve.true_positive_rate, curve.false_positive_rate, 0.5)
    torch.testing.assert_close(found[1:], precision_recall(SCORES, ODD).precision)


def test_the_cheapest_threshold_falls_as_a_miss_becomes_dearer():
    curve = roc(*gaussians(500, 1.5))
    found = [
        curve.thresholds[expected_cost(curve, prevalence=0.1, miss_cost=miss, false_alarm_cost=1.0).argmin()].item()
        for miss in (1.0, 10.0, 1000.0)
    ]
    assert found[0] > found[1] > found[2]
    cost = expected_cost(roc(SCORES, ODD), prevalence=0.1, miss_cost=5.0, false_alarm_cost=2.0)
    assert cost.tolist() == pytest.approx([0.5, 0.25, 0.25 + 0.9, 0.9, 1.8])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: auc(torch.tensor([1.0, float("nan")]), torch.tensor([True, False])), "scores that are not finite"),
        (lambda: roc(torch.ones(3), torch.zeros(3, dtype=torch.bool)), "found 0 anomalous of 3"),
        (lambda: precision_recall(torch.ones(3), torch.ones(3, dtype=torch.bool)), "found 3 anomalous of 3"),
        (lambda: auc(SCORES, ODD, resamples=0), "resamples=0 and level=0.95 give no interval"),
        (lambda: auc(SCORES, ODD, level=1.0), "level=1.0 give no interval"),
        (lambda: threshold_at(torch.ones(0), false_positive_rate=0.1), "found 0 scores"),
        (lambda: threshold_at(torch.ones(5), false_positive_rate=0.1), "use at least 0.2 and below 1, or more"),
        (lambda: precision_at_prevalence(1.0, 0.0, 1.5), "prevalence=1.5 is no share"),
    ],
)
def test_what_gives_no_answer_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
