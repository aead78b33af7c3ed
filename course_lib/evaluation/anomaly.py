"""How well scores tell what does not belong: curves, areas and thresholds."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn import metrics
from torch import Tensor

from course_lib.errors import InputError

RESAMPLES = 1000


class ROC(NamedTuple):
    """What is found and what is a false alarm, for falling thresholds: an image is
    called anomalous where its score is at least the threshold. The first threshold
    is infinite and calls none so.
    """

    false_positive_rate: Float[Tensor, " thresholds"]
    true_positive_rate: Float[Tensor, " thresholds"]
    thresholds: Float[Tensor, " thresholds"]


class PrecisionRecall(NamedTuple):
    """How much of the alarm is true, and what is found, for falling thresholds."""

    precision: Float[Tensor, " thresholds"]
    recall: Float[Tensor, " thresholds"]
    thresholds: Float[Tensor, " thresholds"]


class Interval(NamedTuple):
    """A value and an interval around it."""

    value: float
    low: float
    high: float


def roc(scores: Float[Tensor, " n"], anomalous: Bool[Tensor, " n"]) -> ROC:
    """Return the receiver operating characteristic of scores, where larger means
    more anomalous.

    Raises:
        InputError: a score is not finite, or there is no anomalous or no normal one.
    """
    found = metrics.roc_curve(*_checked(anomalous, scores), drop_intermediate=False)
    return ROC(*(torch.from_numpy(part).double() for part in found))


def precision_recall(
    scores: Float[Tensor, " n"], anomalous: Bool[Tensor, " n"]
) -> PrecisionRecall:
    """Return precision and recall as they are with this share of anomalies.

    Where anomalies are rarer than here, precision is lower: see
    `precision_at_prevalence`.

    Raises:
        InputError: as for `roc`.
    """
    found = metrics.precision_recall_curve(*_checked(anomalous, scores))
    precision, recall, thresholds = (torch.from_numpy(part.copy()) for part in found)
    # scikit-learn begins with the smallest threshold and adds a last point by hand.
    return PrecisionRecall(
        precision[:-1].flip(0).double(),
        recall[:-1].flip(0).double(),
        thresholds.flip(0).double(),
    )


def auc(
    scores: Float[Tensor, " n"],
    anomalous: Bool[Tensor, " n"],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the area under the ROC curve, and an interval by the bootstrap.

    The area is the probability that an anomalous image has a larger score than a
    normal one; 1/2 is chance. Normal and anomalous images are drawn anew, each from
    their own, with replacement; the interval leaves out the smallest and the largest
    areas of these samples (the percentile method). It says how much other test
    images would change, not another training.

    Args:
        level: the share of the samples that lies in the interval.

    Raises:
        InputError: as for `roc`, or `resamples` is below 1, or `level` is no share.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter
    13.
    """
    if resamples < 1 or not 0 < level < 1:
        raise InputError(
            f"resamples={resamples} and level={level} give no interval: use at "
            "least 1 sample and a share between 0 and 1"
        )
    truth, values = _checked(anomalous, scores)
    odd, normal = values[truth], values[~truth]
    # Which pairs are in the right order; a tie counts half.
    ordered = (odd[:, None] > normal) + (odd[:, None] == normal) / 2
    random = np.random.default_rng(seed)
    drawn = [  # how often each image is drawn: (resamples, odd), (resamples, normal)
        random.multinomial(
            len(group), np.full(len(group), 1 / len(group)), resamples
        )
        for group in (odd, normal)
    ]
    areas = ((drawn[0] @ ordered) * drawn[1]).sum(axis=1) / ordered.size
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    value = metrics.roc_auc_score(truth, values)
    return Interval(float(value), float(low), float(high))


def threshold_at(
    normal_scores: Float[Tensor, " n"], *, false_positive_rate: float
) -> float:
    """Return the smallest threshold among these scores that calls at most such a
    share of them anomalous, where a score counts from the threshold on.

    Give scores of normal images that were neither trained nor tested on: among
    others the share will differ.

    Raises:
        InputError: there is no score, one is not finite, or the share is below
            1 / n (no score is high enough to promise that) or not below 1.
    """
    count = len(normal_scores)
    if count == 0 or not normal_scores.isfinite().all():
        raise InputError(
            f"found {count} scores, of which {int(normal_scores.isfinite().sum())} "
            "are finite: a threshold needs scores that are"
        )
    if not 1 / count <= false_positive_rate < 1:
        raise InputError(
            f"false_positive_rate={false_positive_rate} cannot be had from {count} "
            f"scores: use at least {1 / count:.3g} and below 1, or more scores"
        )
    values = normal_scores.double().sort().values
    called = count - torch.searchsorted(values, values)  # from each score on
    allowed = int(false_positive_rate * count + 1e-9)
    within = values[called <= allowed]
    if len(within) == 0:
        raise InputError(
            f"the largest score comes {int(called[-1])} times, more than "
            f"false_positive_rate={false_positive_rate} allows: use a larger one"
        )
    return within[0].item()


def precision_at_prevalence(
    true_positive_rate: Float[Tensor, "*shape"] | float,
    false_positive_rate: Float[Tensor, "*shape"] | float,
    prevalence: float,
) -> Float[Tensor, "*shape"] | float:
    """Return which share of the alarms is true where a share `prevalence`, pi, of
    all images is anomalous:

        pi TPR / (pi TPR + (1 - pi) FPR).

    Where nothing is called anomalous there is no such share: NaN.

    Raises:
        InputError: `prevalence` is not from 0 to 1.
    """
    _check_prevalence(prevalence)
    true = prevalence * torch.as_tensor(true_positive_rate, dtype=torch.float64)
    false = (1 - prevalence) * torch.as_tensor(
        false_positive_rate, dtype=torch.float64
    )
    found = true / (true + false)
    return found.item() if found.ndim == 0 else found


def expected_cost(
    curve: ROC, *, prevalence: float, miss_cost: float, false_alarm_cost: float
) -> Float[Tensor, " thresholds"]:
    """Return what an image costs on average, for each threshold of a ROC curve:

        pi (1 - TPR) miss_cost + (1 - pi) FPR false_alarm_cost.

    The best threshold is that of the smallest cost.

    Raises:
        InputError: `prevalence` is not from 0 to 1.
    """
    _check_prevalence(prevalence)
    missed = prevalence * (1 - curve.true_positive_rate)
    alarmed = (1 - prevalence) * curve.false_positive_rate
    return miss_cost * missed + false_alarm_cost * alarmed


def _check_prevalence(prevalence: float) -> None:
    if not 0 <= prevalence <= 1:
        raise InputError(f"prevalence={prevalence} is no share: use 0 to 1")


def _checked(anomalous: Tensor, scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if not scores.isfinite().all():
        raise InputError("found scores that are not finite: they have no order")
    count = int(anomalous.sum())
    if not 0 < count < len(anomalous):
        raise InputError(
            f"found {count} anomalous of {len(anomalous)}: there must be some, and "
            "some that are not"
        )
    return anomalous.numpy(force=True), scores.double().numpy(force=True)
