import pytest
import torch

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
