from functools import partial

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from course_lib.errors import InputError
from course_lib.evaluation import inception
from course_lib.evaluation.frechet import frechet_distance


class MeanColours(nn.Module):
    """Stands in for the Inception network: three features, and what it was given."""

    num_features = 3

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, images):
        self.given.append(images)
        return images.float().mean(dim=(2, 3)) * 10


def test_images_go_in_as_the_network_wants_them_and_fid_is_the_distance_of_its_features(monkeypatch):
    network, scorer = MeanColours(), MeanColours()
    monkeypatch.setattr(inception, "FEATURES", 3)
    monkeypatch.setattr(inception, "FrechetInceptionDistance", partial(FrechetInceptionDistance, network))
    monkeypatch.setattr(inception, "InceptionScore", partial(InceptionScore, scorer, splits=2))
    torch.manual_seed(0)
    real, fake = torch.rand(250, 3, 4, 4) * 2 - 1, torch.rand(130, 3, 4, 4) - 1
    scores = inception.inception_scores(real, fake)
    seen = torch.cat(network.given)
    assert seen.shape == (380, 3, 4, 4) and seen.min() >= 0 and seen.max() <= 1
    torch.testing.assert_close(seen, (torch.cat([real, fake]) + 1) / 2)
    features = (torch.cat([real, fake]) + 1).mean(dim=(2, 3)) * 5
    assert scores.fid == pytest.approx(frechet_distance(features[:250], features[250:]), rel=1e-3)
    (bytes_seen,) = {batch.dtype for batch in scorer.given}
    assert bytes_seen == torch.uint8 and sum(len(batch) for batch in scorer.given) == 130
    assert scores.inception_score >= 1
    inception.inception_scores(real[:, :1], fake[:, :1])
    assert network.given[-1].shape[1] == 3  # grey images get three channels


@pytest.mark.parametrize("error", [ModuleNotFoundError("no torch-fidelity"), OSError("no network")])
def test_where_the_network_cannot_be_had_it_says_what_is_missing(error, monkeypatch):
    def missing(**_):
        raise error

    monkeypatch.setattr(inception, "FEATURES", 3)
    monkeypatch.setattr(inception, "FrechetInceptionDistance", missing)
    with pytest.raises(InputError, match=rf"download of about 91 MB \({error}\): pip install torch-fidelity"):
        inception.inception_scores(torch.zeros(4, 1, 4, 4), torch.zeros(4, 1, 4, 4))


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="found 2048 real and 2049 fake: FID needs more than 2048"):
        inception.inception_scores(torch.zeros(2048, 1, 1, 1), torch.zeros(2049, 1, 1, 1))
