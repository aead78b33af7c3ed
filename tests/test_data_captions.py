import dataclasses

import pytest
import torch

from course_lib.data import captions
from course_lib.data.images import digits, petals, to_unit_range
from course_lib.errors import InputError

ALL = torch.cartesian_prod(*(torch.arange(values) for values in captions.ATTRIBUTES))


@pytest.fixture(scope="module")
def plain():
    return to_unit_range(digits().train_images[:200])


@pytest.fixture(scope="module")
def few():
    data = digits()
    few = {"train_images": data.train_images[:90], "train_labels": data.train_labels[:90]}
    few |= {"test_images": data.test_images[:30], "test_labels": data.test_labels[:30]}
    return dataclasses.replace(data, **few)


def stroke(slant):
    """A line three pixels wide that moves to the right by so many pixels per row upwards."""
    image = torch.full((1, 1, 21, 21), -1.0)
    for row in range(4, 17):
        middle = 10 + round(slant * (10 - row))
        image[..., row, middle - 1 : middle + 2] = 1.0
    return image


def test_captions_are_read_as_they_are_written():
    said = [captions.caption(one) for one in ALL]
    assert len(set(said)) == 40 and {"seven", "bold slanted seven", "slanted zero"} <= set(said)
    assert torch.equal(captions.conditions_of(said), ALL)
    assert captions.conditions_of(["Slanted BOLD two"]).tolist() == [[2, 1, 1]]
    assert captions.conditions_of([]).shape == (0, 3)


@pytest.mark.parametrize("text", ["", "bold", "two three", "green two", "bold bold two", "two two"])
def test_what_is_no_caption_is_refused(text):
    with pytest.raises(InputError, match="cannot be read: write one digit"):
        captions.conditions_of([text])


@pytest.mark.parametrize("slant", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_the_lean_of_a_line_is_its_slope(slant):
    assert captions.lean(stroke(slant)).item() == pytest.approx(slant, abs=0.03)


def test_a_stroke_twice_as_wide_has_twice_the_thickness_and_one_twice_as_long_has_not():
    def bar(width, length):
        image = torch.full((1, 1, 40, 40), -1.0)
        image[..., 2 : 2 + length, 10 : 10 + width] = 1.0
        return captions.thickness(image).item()

    assert bar(4, 36) / bar(2, 36) == pytest.approx(2, rel=0.1)
    assert bar(2, 36) / bar(2, 18) == pytest.approx(1, rel=0.1)


def test_an_empty_image_has_no_lean_and_no_thickness():
    empty = torch.full((1, 1, 8, 8), -1.0)
    assert captions.lean(empty).item() == 0 and captions.thickness(empty).item() == 0


def test_upright_digits_lean_no_more_and_slanted_ones_by_what_was_asked_for(plain):
    assert captions.lean(plain).std() > 0.1
    upright = captions.upright(plain)
    assert captions.lean(upright).abs().max() < 1e-3
    assert captions.lean(captions.slanted(upright, torch.tensor(0.4))).mean().item() == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("side_px", [8, 28])
def test_bold_adds_ink_beside_strokes_and_takes_none(side_px):
    image = torch.full((1, 1, side_px, side_px), -1.0)
    image[..., 2:6, 4] = 1.0
    bold = captions.bold(image)
    assert (bold >= image).all() and bold.max() == 1 and captions.thickness(bold) > captions.thickness(image)
    assert (bold[..., 3, 3] > -1).all() and (bold[..., 3, 6] == -1).all()


def test_every_digit_comes_in_four_forms_with_a_true_caption(few):
    train, test = captions.captioned(few)
    assert len(train.images) == 4 * 90 and len(test.images) == 4 * 30
    assert train.images.dtype == torch.uint8 and train.images.shape[1:] == (1, 8, 8)
    forms = train.conditions.reshape(4, 90, 3)
    assert torch.equal(forms[..., 0], few.train_labels.expand(4, 90))
    assert forms[:, 0, 1:].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    images = to_unit_range(train.images)
    is_bold, is_slanted = train.conditions[:, 1] == 1, train.conditions[:, 2] == 1
    assert ((captions.lean(images) > captions.SLANT / 2) == is_slanted).float().mean() > 0.99
    thick = captions.thickness(images)
    assert thick[is_bold].mean() > 1.3 * thick[~is_bold].mean()


def test_pictures_without_digits_have_no_captions():
    with pytest.raises(InputError, match="data 'petals' have no captions: use digits or mnist"):
        captions.captioned(petals())
