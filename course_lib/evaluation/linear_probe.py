"""What features are worth: how well a linear classifier does with few labels."""

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from course_lib.data.labels import choose_labelled
from course_lib.errors import InputError

FOLDS = 3
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, a small one holds more


def linear_probe(
    features: Float[Tensor, "train *shape"],
    labels: Int[Tensor, " train"],
    test_features: Float[Tensor, "test *shape"],
    test_labels: Int[Tensor, " test"],
    *,
    count: int,
    seed: int,
) -> float:
    """Train a logistic regression on the features of a labelled few, as many of each
    class, and return the share of the test images that it gets right.

    Give it the features of a network, then the pixels, with the same seed: it sees
    the same images. Features are standardised, and the regularisation is chosen by
    cross-validation among the labelled few, so that neither of the two is favoured.

    Args:
        count: how many labels are used.
        seed: decides which.

    Raises:
        InputError: the labels cannot be shared equally, or a class has fewer than
            three; or a value is not finite.

    Source: Radford et al. (2015), Unsupervised Representation Learning with DCGANs,
    section 5. They train a support vector machine.
    """
    classes = int(labels.max()) + 1
    if count < FOLDS * classes:
        raise InputError(
            f"count={count} labels are too few to choose the regularisation for "
            f"{classes} classes: use at least {FOLDS * classes}"
        )
    labelled = choose_labelled(labels.cpu(), count, classes=classes, seed=seed)
    inputs, unseen = (
        part.detach().cpu().flatten(start_dim=1).double()
        for part in (features, test_features)
    )
    if not (inputs.isfinite().all() and unseen.isfinite().all()):
        raise InputError("found features that are not finite: nothing can be learnt")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(classifier, {"logisticregression__C": STRENGTHS}, cv=FOLDS)
    search.fit(inputs[labelled].numpy(), labels.cpu()[labelled].numpy())
    predicted = torch.from_numpy(search.predict(unseen.numpy()))
    return (predicted == test_labels.cpu()).double().mean().item()
