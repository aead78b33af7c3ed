"""FID and Inception score proper: by the Inception network, which is downloaded."""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from course_lib.errors import InputError

FEATURES = 2048
BATCH = 100


class InceptionScores(NamedTuple):
    """FID, the smaller the better, and Inception score, 1 to 1,008 (the network's
    outputs), the larger the better: the mean over ten random parts of the sample.
    """

    fid: float
    inception_score: float


def inception_scores(
    real: Float[Tensor, "real channels side side"],
    fake: Float[Tensor, "fake channels side side"],
) -> InceptionScores:
    """Compare images, pixels in [-1, 1], by what Inception v3 sees in them.

    It needs `pip install torch-fidelity`, and at its first use a download of about
    91 MB. Images are enlarged to 299 x 299 px; grey ones are given three equal
    channels. The network was trained on photographs, so what it says of digits means
    little. Published numbers are of 10,000 to 50,000 images; compare none with one
    of another count.

    Raises:
        InputError: torch-fidelity or the weights cannot be had; or either sample has
            no more images than the network has features, 2,048.

    Source: FID: Heusel et al. (2017), GANs Trained by a Two Time-Scale Update Rule.
    Inception score: Salimans et al. (2016), Improved Techniques for Training GANs,
    section 4. Both as computed by torchmetrics.
    """
    if min(len(real), len(fake)) <= FEATURES:
        raise InputError(
            f"found {len(real)} real and {len(fake)} fake: FID needs more than "
            f"{FEATURES} of each"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `InceptionScore` will save")
            distance = FrechetInceptionDistance(normalize=True)
            score = InceptionScore(normalize=True)
    except (ModuleNotFoundError, OSError) as error:
        raise InputError(
            "FID and Inception score need torch-fidelity and its weights, a "
            f"download of about 91 MB ({error}): pip install torch-fidelity on a "
            "machine with a network, or ask the course's own judge"
        ) from error
    with torch.inference_mode():
        for batch in real.split(BATCH):
            distance.update(_prepared(batch), real=True)
        for batch in fake.split(BATCH):
            distance.update(_prepared(batch), real=False)
            score.update(_prepared(batch))
    return InceptionScores(distance.compute().item(), score.compute()[0].item())


def _prepared(images: Tensor) -> Tensor:
    """Return colour images with pixels in [0, 1]."""
    return ((images.cpu() + 1) / 2).expand(-1, 3, -1, -1)
