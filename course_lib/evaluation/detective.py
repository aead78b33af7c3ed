"""A detective that was not part of the game: can anybody tell the fakes apart?"""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_score
from torch import Tensor

from course_lib.errors import InputError


def fresh_detective_accuracy(
    real: Float[Tensor, "real *shape"],
    fake: Float[Tensor, "fake *shape"],
    *,
    folds: int = 2,
    seed: int = 0,
) -> float:
    """Train a new classifier on real and fake, and return the share that it gets
    right of what it has not seen.

    It is 1/2 where nobody can tell them apart, up to the luck of a sample, and 1
    where they can always be told. Give it real images that the fakes were not made
    from: a copy and its original bear opposite labels, and the share falls far below
    1/2. A GAN's own discriminator is no such judge: one that has died says 1/2, too.
    The classifier is scikit-learn's gradient boosting of trees, with its defaults.
    Each fold is judged by the trees of the others.

    Raises:
        InputError: the samples differ in size, so that guessing would beat 1/2; or
            a value is not finite.

    Source: Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests.
    """
    if len(real) != len(fake):
        raise InputError(
            f"found {len(real)} real and {len(fake)} fake: give as many of each"
        )
    both = torch.cat([real, fake]).flatten(start_dim=1)
    if not both.isfinite().all():
        raise InputError(
            "found values that are not finite: there is nothing to tell"
        )
    truth = np.repeat([1, 0], len(real))
    order = np.random.default_rng(seed).permutation(len(truth))
    inputs = both.numpy(force=True)[order]
    classifier = HistGradientBoostingClassifier(random_state=seed)
    scores = cross_val_score(classifier, inputs, truth[order], cv=folds)
    return float(scores.mean())
