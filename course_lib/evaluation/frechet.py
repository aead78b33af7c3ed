"""How far apart two samples are, each seen as a Gaussian: the Fréchet distance."""

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.errors import InputError


def frechet_distance(
    real_features: Float[Tensor, "real features"],
    fake_features: Float[Tensor, "fake fake_features"],
) -> float:
    """Return the squared Fréchet distance of the Gaussians that have the means m and
    the covariances C of the two samples:

        |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)),

    0 where both agree. Computed in float64.

    It is called FID only where the features are those of the Inception network, as
    in `evaluation.inception`. With others it is another number, on another scale.

    A sample's moments are not those of its source, so two samples of one source
    have a distance above 0: the smaller they are, the larger it is. Compare only
    distances of samples of the same sizes, and give that of two real samples, the
    floor, beside them. Equal sizes make the bias alike, not the same (Chong and
    Forsyth, 2020): a difference as small as the floor says nothing.

    Raises:
        InputError: the samples have not the same features; one has no more pictures
            than features, so that its covariance has no full rank; or a value is not
            finite.

    Source: Heusel et al. (2017), GANs Trained by a Two Time-Scale Update Rule,
    equation 6.
    """
    if real_features.shape[1] != fake_features.shape[1]:
        raise InputError(
            f"found {real_features.shape[1]} features of the real and "
            f"{fake_features.shape[1]} of the fake: measure both by one judge"
        )
    (real_mean, real_covariance), (fake_mean, fake_covariance) = (
        _moments(real_features, "real"),
        _moments(fake_features, "fake"),
    )
    # C1 C2 has the eigenvalues of R C2 R with R = C1^(1/2), and that is symmetric.
    root = _square_root(real_covariance)
    eigenvalues = torch.linalg.eigvalsh(root @ fake_covariance @ root)
    trace_of_root = eigenvalues.clamp_min(0).sqrt().sum()
    traces = real_covariance.trace() + fake_covariance.trace()
    distance = (real_mean - fake_mean).square().sum() + traces - 2 * trace_of_root
    return max(0.0, distance.item())  # of equal samples, rounding may leave -1e-14


def _moments(features: Tensor, name: str) -> tuple[Tensor, Tensor]:
    count, dimensions = features.shape
    if count <= dimensions:
        raise InputError(
            f"found {count} {name} pictures with {dimensions} features: their "
            f"covariance needs at least {dimensions + 1} pictures"
        )
    values = features.double().cpu()
    if not values.isfinite().all():
        raise InputError(
            f"found {name} features that are not finite: there is no distance"
        )
    return values.mean(dim=0), values.T.cov().reshape(dimensions, dimensions)


def _square_root(covariance: Tensor) -> Tensor:
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return (vectors * eigenvalues.clamp_min(0).sqrt()) @ vectors.T
