import dataclasses

import pytest
import torch
from pydantic import TypeAdapter

from course_lib.data.augment import BACKGROUND, RandomAffine


def bright_pixel(row, column, *, side=9, batch=64):
    images = torch.full((batch, 1, side, side), BACKGROUND)
    images[:, :, row, column] = 1
    return images


def centre(images):
    """Centre of brightness, (row, column) of each image in pixels."""
    weight = images[:, 0] - BACKGROUND
    position = torch.arange(images.shape[-1], dtype=torch.float32)
    total = weight.sum((1, 2))
    return (weight.sum(2) * position).sum(1) / total, (weight.sum(1) * position).sum(1) / total


def test_no_limit_means_no_change():
    images = torch.rand(5, 3, 8, 8) * 2 - 1
    assert torch.allclose(RandomAffine()(images), images, atol=1e-5)


def test_a_shift_stays_within_its_limit_and_reaches_all_of_it():
    torch.manual_seed(0)
    rows, columns = centre(RandomAffine(shift_px=2.0)(bright_pixel(4, 4, batch=2000)))
    for position in (rows, columns):
        assert 1.9 < (position - 4).abs().max() <= 2.0 + 1e-4
        assert (position - 4).mean().abs() < 0.1
    assert torch.corrcoef(torch.stack([rows, columns]))[0, 1].abs() < 0.1


def test_a_turn_keeps_the_distance_from_the_middle():
    torch.manual_seed(0)
    rows, columns = centre(RandomAffine(rotation_degrees=90.0)(bright_pixel(1, 4, batch=500)))
    distance = ((rows - 4) ** 2 + (columns - 4) ** 2).sqrt()
    assert torch.allclose(distance, torch.tensor(3.0), atol=0.25)
    assert columns.min() < 1.5 and columns.max() > 6.5


def test_a_stretch_moves_away_from_the_middle_and_a_slant_sideways():
    torch.manual_seed(0)
    rows, columns = centre(RandomAffine(stretch=0.3)(bright_pixel(2, 4, batch=500)))
    assert rows.min() < 1.6 and rows.max() > 2.4 and torch.allclose(columns, torch.tensor(4.0), atol=1e-3)
    rows, columns = centre(RandomAffine(slant=0.5)(bright_pixel(2, 4, batch=500)))
    assert torch.allclose(rows, torch.tensor(2.0), atol=1e-3) and 0.9 < (columns - 4).abs().max() <= 1.0 + 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_what_enters_is_background_and_channels_move_together(channels):
    images = torch.ones(16, channels, 6, 6)
    moved = RandomAffine(shift_px=3.0)(images)
    assert moved.min() == BACKGROUND and moved.max() <= 1 + 1e-5
    assert all(torch.equal(moved[:, 0], moved[:, channel]) for channel in range(channels))


def test_every_image_is_changed_in_its_own_way():
    moved = RandomAffine(shift_px=1.0)(bright_pixel(4, 4, batch=3))
    assert not torch.equal(moved[0], moved[1]) and not torch.equal(moved[1], moved[2])


def test_whole_pixel_shifts_move_without_blurring_and_all_come_equally_often():
    torch.manual_seed(0)
    moved = RandomAffine(shift_px=2.0, whole_pixels=True)(bright_pixel(4, 4, batch=5000))
    assert ((moved > 0.999).sum((1, 2, 3)) == 1).all()
    rows, _ = centre(moved)
    counts = torch.bincount((rows.round() - 2).long(), minlength=5)
    assert len(counts) == 5 and (counts / 5000 - 0.2).abs().max() < 0.03


@pytest.mark.parametrize(
    "field, limit, allowed",
    [("shift_px", 64, True), ("rotation_degrees", 180, True), ("stretch", 1, False), ("slant", 1, False)],
)
def test_an_amount_that_is_absurd_is_refused_with_its_name_and_limit(field, limit, allowed):
    given = RandomAffine()
    for wrong in (-0.1, limit * 1.01, 1e39, float("inf"), float("nan"), "1", True, None):
        with pytest.raises(ValueError, match=field):
            RandomAffine(**{field: wrong})
        with pytest.raises(ValueError, match=field):
            dataclasses.replace(given, **{field: wrong})
    with pytest.raises(ValueError, match=f"less than .*{limit}"):
        RandomAffine(**{field: 1e39})
    assert getattr(RandomAffine(**{field: limit if allowed else 0.99 * limit}), field) > 0


def test_a_misspelt_amount_and_a_fraction_of_a_whole_pixel_are_refused():
    with pytest.raises(ValueError, match="strech"):
        RandomAffine(strech=0.1)
    with pytest.raises(ValueError, match=r"shift_px=1\.5 is no whole number"):
        RandomAffine(shift_px=1.5, whole_pixels=True)


def test_it_stays_a_plain_dataclass_that_says_what_its_fields_are():
    affine = RandomAffine(shift_px=2, stretch=0.1)
    given = {"shift_px": 2.0, "rotation_degrees": 0.0, "stretch": 0.1, "slant": 0.0, "whole_pixels": False}
    assert list(dataclasses.asdict(affine).items()) == list(given.items())
    assert affine == RandomAffine(**given) != RandomAffine() and len({affine, RandomAffine(**given)}) == 1
    assert dataclasses.replace(affine, slant=0.5) == RandomAffine(shift_px=2, stretch=0.1, slant=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        affine.slant = 0.5
    described = TypeAdapter(RandomAffine).json_schema()["properties"]
    assert all(len(described[field.name]["description"].splitlines()) == 1 for field in dataclasses.fields(affine))


@pytest.mark.parametrize(
    "amounts, middle_rows",
    [
        (
            {"shift_px": 1.5, "rotation_degrees": 10.0, "stretch": 0.1, "slant": 0.2},
            [-0.4945, -0.4517, -0.4089, 0.3882, 0.4315, 0.4749],
        ),
        ({"shift_px": 2.0, "whole_pixels": True}, [-0.3878, -0.3469, -0.3061, 0.4286, 0.4694, 0.5102]),
    ],
)
def test_a_seed_gives_the_pictures_that_the_first_version_gave(amounts, middle_rows):
    torch.manual_seed(0)
    moved = RandomAffine(**amounts)(torch.linspace(-1, 1, 50).reshape(2, 1, 5, 5))
    assert torch.allclose(moved[:, 0, 2, 1:4].flatten(), torch.tensor(middle_rows), atol=1e-4)
