import time

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.data import drawn
from course_lib.data.folder import read
from course_lib.errors import InputError

FORMULAS = [(drawn.petals, 4), (drawn.apples, 3)]
both = pytest.mark.parametrize(("draw", "classes"), FORMULAS)


@both
def test_pictures_are_colour_and_classes_take_turns(draw, classes):
    images, labels = draw(10, side_px=9)
    assert images.shape == (10, 3, 9, 9) and images.dtype == torch.uint8
    assert labels.tolist() == [number % classes for number in range(10)]
    assert (images.float().std(dim=1).mean(dim=(1, 2)) > 5).all()  # no picture is grey


@both
def test_a_picture_depends_on_the_seed_and_its_number_alone(draw, classes, monkeypatch):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    many = draw(50, seed=3).images
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(many[:7], draw(7, seed=3).images)
    monkeypatch.setattr(drawn, "AT_ONCE_PIXELS", 16 * 16 * 6)
    assert torch.equal(many, draw(50, seed=3).images)
    assert (many != draw(50, seed=4).images).any(dim=(1, 2, 3)).all()
    assert len(torch.unique(many.flatten(1), dim=0)) == 50


@both
def test_a_small_picture_is_the_large_one_seen_from_afar(draw, classes):
    # A pixel of the small one should be near the mean of what it covers: so edges are smooth.
    small, large = draw(40, side_px=16).images.float(), draw(40, side_px=128).images.float()
    means = torch.nn.functional.avg_pool2d(large, 8)
    assert (small - means).square().mean().sqrt() < 4.5  # the middles of the same squares would miss by 12


def test_a_flower_has_as_many_petals_as_its_class_says():
    images, labels = drawn.petals(40, side_px=96)
    for image, label in zip(images.float(), labels, strict=True):
        assert petals_of(image) == label + 3


def petals_of(image):
    """Count how often a circle around the flower's heart crosses from ground to petal; blue or red is petal."""
    red, green, blue = image
    petal = torch.maximum(red, blue) > green + 8
    y, x = torch.nonzero(petal).float().T
    angles = torch.arange(0, 2 * np.pi, 0.01)
    counts = []
    for radius in torch.arange(10.0, 44.0):  # the petals are longest where most of them are cut
        rows = (y.mean() + radius * angles.sin()).round().long().clamp(0, 95)
        columns = (x.mean() + radius * angles.cos()).round().long().clamp(0, 95)
        ring = petal[rows, columns]
        counts.append(int((ring & ~ring.roll(1)).sum()))
    return max(set(counts), key=lambda count: counts.count(count) if count > 1 else 0)


def test_an_apple_has_the_colour_that_its_class_says():
    images, labels = drawn.apples(60, side_px=32)
    red, green, blue = images[:, :, 14:24, 12:20].float().mean(dim=(2, 3)).T
    guess = torch.where(green > 1.2 * red, 1, torch.where(green > 0.5 * red, 2, 0))
    assert torch.equal(guess, labels) and (blue < red.maximum(green)).all()


@both
def test_two_thousand_pictures_take_about_a_second_at_most(draw, classes):
    started = time.process_time()
    draw(2000)
    assert time.process_time() - started < 2  # a tenth of that was measured


@both
def test_nothing_is_drawn_of_no_size(draw, classes):
    for how in ({"count": 0}, {"count": 3, "side_px": 0}):
        with pytest.raises(InputError, match="cannot be drawn: use at least 1 of each"):
            draw(**how)


def test_saved_apples_are_pictures_of_several_shapes_and_one_broken_file(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.data.folder.user_cache_path", lambda name: tmp_path / "cache")
    folder = tmp_path / "new" / "apples"
    drawn.save_apples(folder, 30, side_px=48)
    sizes = set()
    for path in folder.glob("apple_*.jpg"):
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert len(list(folder.iterdir())) == 31 and len(sizes) > 5 and max(max(sizes)) == 48 and min(min(sizes)) >= 36
    found = read(folder, 16)
    assert len(found.train_images) == 27 and [skipped.path for skipped in found.skipped] == ["broken.jpg"]
    assert "truncated" in found.skipped[0].reason


def test_the_same_apples_are_saved_again(tmp_path):
    for name in ("a", "b"):
        drawn.save_apples(tmp_path / name, 5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
