"""Points in the plane: data that a GAN learns in seconds and that a picture shows
whole. Of the mixtures the density is known, too.
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.data.images import ImageForm
from course_lib.errors import InputError


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Round Gaussians of one width in the plane, all equally likely.

    A mode is one of the Gaussians; its number is its row in `centres`. Samples are
    drawn from torch's global random state, in float32.

    Raises:
        InputError: there is no centre, or `std` is not positive and finite.
    """

    centres: Float[Tensor, "modes 2"]
    std: float

    def __post_init__(self) -> None:
        if len(self.centres) == 0:
            raise InputError("found 0 centres: a mixture needs at least 1")
        _check_positive("std", self.std)

    @property
    def modes(self) -> int:
        return len(self.centres)

    @property
    def form(self) -> ImageForm:
        """The form that a record of a run has for a point: a picture of one pixel
        with a channel for each coordinate, and a class for each mode.
        """
        return ImageForm(channels=2, side_px=1, classes=self.modes)

    def sha256(self) -> str:
        """Name the mixture, so that a record can say what it was measured on."""
        centres = self.centres.contiguous().numpy(force=True)
        return hashlib.sha256(centres.tobytes() + repr(self.std).encode()).hexdigest()

    def sample(self, count: int) -> Float[Tensor, "count 2"]:
        """Draw points; each comes from any mode with the same probability."""
        return self.sample_of(_random_labels(count, self.modes))

    def sample_of(self, labels: Int[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """Draw one point from each mode that is asked for.

        Raises:
            InputError: a label is no number of a mode.
        """
        _check_labels(labels, self.modes)
        return self.centres[labels] + self.std * torch.randn(len(labels), 2)

    def log_density(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Return log p(x) of each point, in nats, in the points' precision.

        p(x) is the mean over the centres c of
        exp(-|x - c|^2 / (2 std^2)) / (2 pi std^2). Its log is taken by a
        log-sum-exp, which is exact also where the density itself would round to 0.
        """
        exponents = -self._squared_distances(points) / (2 * self.std**2)
        log_scale = math.log(2 * math.pi * self.std**2 * self.modes)
        return exponents.logsumexp(dim=1) - log_scale

    def modes_of(
        self,
        points: Float[Tensor, "n 2"],
        *,
        within_stds: float = 3.0,
    ) -> Int[Tensor, " n"]:
        """Name the mode of each point: that of the nearest centre, or -1 for a point
        that is more than `within_stds` standard deviations away from it.

        Of a lone mode's samples a share exp(-within_stds^2 / 2) is so far away:
        1.1 % for 3.

        Source: the authors' code of Lin et al. (2018), PacGAN, takes the nearest
        centre and 3 standard deviations.
        """
        _check_positive("within_stds", within_stds)
        squared, nearest = self._squared_distances(points).min(dim=1)
        return nearest.where(squared <= (within_stds * self.std) ** 2, -1)

    def modes_covered(
        self,
        points: Float[Tensor, "n 2"],
        *,
        within_stds: float = 3.0,
        at_least: int = 1,
    ) -> int:
        """Count the modes to which at least so many points belong."""
        if at_least < 1:
            raise InputError(f"at_least={at_least} points: use 1 or more")
        found = self.modes_of(points, within_stds=within_stds)
        counts = torch.bincount(found[found >= 0], minlength=self.modes)
        return int((counts >= at_least).sum())

    def _squared_distances(
        self,
        points: Float[Tensor, "n 2"],
    ) -> Float[Tensor, "n modes"]:
        differences = points[:, None] - self.centres.to(points)  # (n, modes, 2)
        return differences.square().sum(dim=2)


def ring(
    *,
    modes: int = 8,
    radius: float = 2.0,
    std: float = 0.02,
) -> GaussianMixture:
    """Place Gaussians on a circle, mode 0 at (radius, 0), the others anticlockwise.

    Eight modes, radius 2 and standard deviation 0.02 are the field's usual setting.
    Each coordinate then has a standard deviation of 1.41. Gulrajani et al. divide
    by it; we do not.

    Source: Metz et al. (2017), Unrolled GANs, section 3.1; with the same numbers in
    `gan_toy.py` of the authors' code of Gulrajani et al. (2017).
    """
    if modes < 1:
        raise InputError(f"modes={modes} make no ring: use at least 1")
    _check_positive("radius", radius)
    angles = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    centres = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(centres.float(), std)


def grid(
    *,
    side: int = 5,
    spacing: float = 2.0,
    std: float = 0.05,
) -> GaussianMixture:
    """Place side x side Gaussians on a square grid around the origin.

    Mode 0 is at the lower left; the numbers go along the rows, from left to right.
    The usual setting is 5 x 5, from -4 to 4, with standard deviation 0.05. Each
    coordinate then has a standard deviation of 2.83. Gulrajani et al. divide by it;
    we do not.

    Source: the authors' code of Gulrajani et al. (2017), `gan_toy.py`, and of Lin et
    al. (2018), PacGAN.
    """
    if side < 1:
        raise InputError(f"side={side} makes no grid: use at least 1")
    _check_positive("spacing", spacing)
    along = (torch.arange(side) - (side - 1) / 2) * spacing
    y, x = torch.meshgrid(along, along, indexing="ij")
    return GaussianMixture(torch.stack([x.flatten(), y.flatten()], dim=1), std)


@dataclass(frozen=True)
class TwoMoons:
    """Two half circles of radius 1 that reach into each other, blurred by noise.

    Moon 0 is the upper half of a circle around (0, 0), moon 1 the lower half of one
    around (1, 0.5). A place on the moon is uniform over its length; both coordinates
    get noise from N(0, noise_std^2). The density is an integral over the moon
    without a closed form, so there is no `log_density`, and a moon has no centre.
    Samples are drawn from torch's global random state, in float32.

    Raises:
        InputError: `noise_std` is negative or not finite.

    Source: scikit-learn's `make_moons`. Its places are evenly spaced, and its moons
    have the same number of points; ours are drawn at random.
    """

    noise_std: float = 0.1
    modes = 2

    def __post_init__(self) -> None:
        if not 0 <= self.noise_std < math.inf:
            raise InputError(f"noise_std={self.noise_std}: use a finite 0 or more")

    def sample(self, count: int) -> Float[Tensor, "count 2"]:
        """Draw points; each comes from either moon with the same probability."""
        return self.sample_of(_random_labels(count, self.modes))

    def sample_of(self, labels: Int[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """Draw one point from each moon that is asked for.

        Raises:
            InputError: a label is neither 0 nor 1.
        """
        _check_labels(labels, self.modes)
        angles = math.pi * torch.rand(len(labels))
        upper = torch.stack([angles.cos(), angles.sin()], dim=1)
        lower = torch.tensor([1.0, 0.5]) - upper
        moons = torch.where(labels[:, None] == 0, upper, lower)
        return moons + self.noise_std * torch.randn(len(labels), 2)


def _random_labels(count: int, modes: int) -> Int[Tensor, " count"]:
    if count < 1:
        raise InputError(f"count={count} points cannot be drawn: use at least 1")
    return torch.randint(modes, (count,))


def _check_labels(labels: Int[Tensor, " count"], modes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= modes)]
    if len(wrong):
        raise InputError(f"label {wrong[0]} is no mode: use 0 to {modes - 1}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name}={value} is no size: use a positive finite number")
