import shutil

import pytest
import torch

from course_lib import files, pretrained, records
from course_lib.data import images
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.evaluation.frechet import frechet_distance
from course_lib.evaluation.judge import judge


@pytest.fixture(scope="module")
def digits():
    return images.digits()


def test_it_says_what_the_shipped_classifier_says_and_bears_its_hash(digits):
    of_digits = judge("digits")
    shipped = pretrained.load("classifier_digits")
    some = to_unit_range(digits.test_images[:20])
    assert torch.equal(of_digits.classes(some), shipped.networks["classifier"](some).logits.argmax(dim=1))
    weights = (pretrained.WEIGHTS / "classifier_digits" / "classifier.safetensors").read_bytes()
    assert of_digits.sha256 == files.sha256(weights)


def test_every_feature_of_the_real_training_images_has_mean_0_and_variance_1(digits):
    features = judge("digits").features(to_unit_range(digits.train_images))
    assert features.shape == (1297, 64) and features.dtype == torch.float32
    assert features.mean(dim=0).abs().max() < 1e-4
    torch.testing.assert_close(features.var(dim=0), torch.ones(64), atol=1e-3, rtol=0)


def test_it_judges_each_image_alone_and_always_alike(digits):
    of_digits, some = judge("digits"), to_unit_range(digits.test_images[:6])
    together = of_digits.features(some)
    alone = torch.cat([of_digits.features(image[None]) for image in some])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(together, of_digits.features(some))
    assert not of_digits.network.training and not together.requires_grad


def test_it_names_the_class_of_most_real_images_and_finds_noise_far_away(digits):
    of_digits, real = judge("digits"), to_unit_range(digits.test_images)
    assert (of_digits.classes(real) == digits.test_labels).float().mean() > 0.98
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    training = of_digits.features(to_unit_range(digits.train_images[:500]))
    floor, far = (frechet_distance(training, of_digits.features(these)) for these in (real, noise))
    assert far > 10 * floor > 0


def test_pictures_of_another_form_are_refused():
    for shape in ((2, 1, 28, 28), (2, 3, 8, 8)):
        with pytest.raises(InputError, match=r"the judge of digits knows \(1, 8, 8\)"):
            judge("digits").classes(torch.zeros(shape))


def test_data_without_a_judge_are_named_with_those_that_have_one():
    with pytest.raises(InputError, match="'fashion_mnist' have no judge: use digits, mnist"):
        judge("fashion_mnist")


def test_a_judge_that_was_exchanged_is_refused(tmp_path, monkeypatch):
    shutil.copytree(records.WEIGHTS / "classifier_digits", tmp_path / "classifier_digits")
    monkeypatch.setattr(records, "WEIGHTS", tmp_path)
    path = tmp_path / "classifier_digits" / "classifier.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or not the file of its record"):
        judge("digits")


def test_of_mnist_only_the_scale_needs_the_data(monkeypatch):
    def nothing_there(name):
        raise InputError(f"{name} is not here")

    monkeypatch.setattr(images, "load", nothing_there)
    of_mnist = judge("mnist")
    assert of_mnist.classes(torch.zeros(3, 1, 28, 28)).shape == (3,)
    with pytest.raises(InputError, match="mnist is not here"):
        of_mnist.features(torch.zeros(3, 1, 28, 28))


def test_it_counts_the_images_of_each_class_and_a_lost_one_gets_none(digits):
    of_digits = judge("digits")
    kept = to_unit_range(digits.test_images[digits.test_labels < 9])
    counts = of_digits.class_counts(kept)
    assert counts.shape == (10,) and counts.sum() == len(kept) and counts[9] <= 2
    assert (counts[:9] - digits.test_labels.bincount()[:9]).abs().max() <= 3
