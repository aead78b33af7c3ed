"""Fakes among their neighbours: are they like real images, are all real images like
some fake, and are they copies?
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from course_lib.errors import InputError

CHUNK = 1000  # rows of a table of distances that are in memory at a time


class NeighbourScores(NamedTuple):
    """Quality (precision, density) and variety (recall, coverage) of fakes."""

    precision: float
    recall: float
    density: float
    coverage: float


class Neighbours(NamedTuple):
    """The nearest training images of each fake, the nearest first."""

    distances: Float[Tensor, "fakes count"]
    indices: Int[Tensor, "fakes count"]


def neighbour_scores(
    real: Float[Tensor, "real features"],
    fake: Float[Tensor, "fake features"],
    *,
    k: int = 5,
) -> NeighbourScores:
    """Compare two samples by balls: that of an image reaches to the k-th nearest
    other image of its own sample.

    precision  share of the fakes that lie in the ball of some real image
    recall     share of the real images that lie in the ball of some fake
    density    in how many balls of real images a fake lies, as a mean, over k; it
               can exceed 1
    coverage   share of the real images in whose ball some fake lies

    None grows with closeness alone: fakes that crowd at common spots raise precision
    and density, fakes that scatter raise recall. Read quality and variety together,
    beside the scores of two real samples. Only two have a known value where both
    samples are of one source: a mean density of about 1, and a mean coverage of
    about 1 - 2^-k. One real image far from all others has a large ball, which makes
    precision and recall too good; density and coverage mind it less.

    Raises:
        InputError: the samples differ in size, none has k other images, or a value
            is not finite.

    Source: precision and recall: Kynkäänniemi et al. (2019), Improved Precision and
    Recall Metric for Assessing Generative Models, section 2 (they take k = 3).
    Density and coverage: Naeem et al. (2020), Reliable Fidelity and Diversity
    Metrics for Generative Models, section 3 (k = 5).
    """
    if len(real) != len(fake):
        raise InputError(
            f"found {len(real)} real and {len(fake)} fake: the size of a sample "
            "changes these scores, so give as many of each"
        )
    if not 1 <= k < len(real):
        raise InputError(
            f"k={k} neighbours cannot be found among {len(real)} images: use 1 to "
            f"{len(real) - 1}"
        )
    real, fake = _finite(real, "real"), _finite(fake, "fake")
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    balls = torch.zeros(len(fake))  # of real images, that a fake lies in
    recalled, covered = [], []
    for images, radii in zip(
        real.split(CHUNK), real_radii.split(CHUNK), strict=True
    ):
        distances = torch.cdist(images, fake)  # (chunk, fake)
        inside = distances <= radii[:, None]
        balls += inside.sum(dim=0)
        covered.append(inside.any(dim=1))
        recalled.append((distances <= fake_radii).any(dim=1))
    return NeighbourScores(
        precision=(balls > 0).double().mean().item(),
        recall=torch.cat(recalled).double().mean().item(),
        density=balls.double().mean().item() / k,
        coverage=torch.cat(covered).double().mean().item(),
    )


def nearest_neighbours(
    fakes: Float[Tensor, "fakes *shape"],
    training: Float[Tensor, "training *shape"],
    *,
    count: int = 1,
) -> Neighbours:
    """Find the training images that are most like each fake, by Euclidean distance.

    A distance says little alone: compare it with that of real images which were not
    trained on. Fakes that are much closer than these are probably copies. Between
    pixels, a picture shifted by one of them is already far; features may mind less.

    Args:
        fakes: pixels or features, of the same kind as those of `training`.

    Raises:
        InputError: there are not so many training images, or a value is not finite.
    """
    if not 1 <= count <= len(training):
        raise InputError(
            f"count={count} neighbours cannot be found among {len(training)} "
            f"training images: use 1 to {len(training)}"
        )
    rows, known = _finite(fakes, "fake"), _finite(training, "training")
    search = NearestNeighbors(n_neighbors=count, algorithm="brute")
    distances, indices = search.fit(known.numpy()).kneighbors(rows.numpy())
    return Neighbours(torch.from_numpy(distances).float(), torch.from_numpy(indices))


def _radii(sample: Tensor, k: int) -> Tensor:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(sample.numpy())
    distances, _ = (
        search.kneighbors()
    )  # of the others: no image is its own neighbour
    return torch.from_numpy(distances[:, -1])


def _finite(images: Tensor, name: str) -> Tensor:
    """Return rows of float64 on the CPU: distances are small differences."""
    rows = images.detach().flatten(start_dim=1).double().cpu()
    if not rows.isfinite().all():
        raise InputError(f"found {name} values that are not finite: nothing is near")
    return rows
