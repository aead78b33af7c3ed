import dataclasses

import pytest
import torch
from pydantic import TypeAdapter

from course_lib.data.augment import (
    BACKGROUND,
    DifferentiableAugmentation,
    RandomAffine,
    binarised,
    mirrored_at_random,
    with_noise,
)


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


# ── Differentiable augmentation ──────────────────────────────────────────────────────────────────────────────────

FOR_FEW = DifferentiableAugmentation(colour=True, translation=1 / 8, cutout=1 / 2)


def test_a_policy_of_nothing_changes_nothing():
    images = torch.rand(5, 3, 8, 8) * 2 - 1
    assert torch.equal(DifferentiableAugmentation()(images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_reaches_the_pixels_that_are_still_seen(channels):
    torch.manual_seed(0)
    images = (torch.rand(50, channels, 16, 16) * 2 - 1).requires_grad_()
    FOR_FEW(images).square().sum().backward()
    reached = (images.grad != 0).float().mean((1, 2, 3))
    assert images.grad.isfinite().all() and (reached > 0.5).all()


def test_the_gradient_is_that_of_the_change_itself():
    images = torch.rand(3, 3, 6, 6, dtype=torch.float64, requires_grad=True)

    def change(pixels):
        torch.manual_seed(1)
        return FOR_FEW(pixels)

    assert torch.autograd.gradcheck(change, (images,))


def test_every_picture_has_random_amounts_of_its_own_and_one_for_all_its_pixels():
    torch.manual_seed(0)
    grey = torch.full((400, 3, 8, 8), 0.25)  # without saturation and contrast: only brightness shows
    changed = DifferentiableAugmentation(colour=True)(grey)
    assert (changed.amax((1, 2, 3)) - changed.amin((1, 2, 3))).max() < 1e-5
    brightness = changed[:, 0, 0, 0] - 0.25
    assert brightness.unique().numel() == 400
    assert brightness.min() < -0.45 and brightness.max() > 0.45 and brightness.mean().abs() < 0.05


def test_contrast_and_saturation_keep_the_means_that_they_are_taken_from():
    torch.manual_seed(0)
    images = torch.rand(500, 3, 8, 8) * 2 - 1
    changed = DifferentiableAugmentation(colour=True)(images)
    brightness = changed.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert brightness.abs().max() <= 0.5 + 1e-5
    greys = [(x.mean(1) - x.mean((1, 2, 3))[:, None, None]).flatten(1) for x in (images, changed)]
    contrast = (greys[0] * greys[1]).sum(1) / greys[0].square().sum(1)
    assert 0.5 <= contrast.min() < 0.55 and 1.45 < contrast.max() <= 1.5 + 1e-4
    assert torch.allclose(greys[1], contrast[:, None] * greys[0], atol=1e-5)
    colours = [(x - x.mean(1, keepdim=True)).flatten(1) for x in (images, changed)]
    both = (colours[0] * colours[1]).sum(1) / colours[0].square().sum(1)
    assert ((both / contrast) < 2 + 1e-4).all() and (both / contrast).min() < 0.05 and (both / contrast).max() > 1.9


def test_a_translation_moves_what_is_there_and_lets_grey_in():
    torch.manual_seed(0)
    moved = DifferentiableAugmentation(translation=0.25)(bright_pixel(4, 4, side=8, batch=3000) + 1)  # background 0
    assert ((moved == 2).sum((1, 2, 3)) == 1).all() and ((moved == 0) | (moved == 2)).all()
    rows, columns = (moved[:, 0] == 2).nonzero()[:, 1:].T
    for position in (rows, columns):
        counts = torch.bincount(position - 2, minlength=5)
        assert len(counts) == 5 and (counts / 3000 - 0.2).abs().max() < 0.03
    entered = DifferentiableAugmentation(translation=0.25)(torch.ones(200, 2, 8, 8))
    assert set(entered.unique().tolist()) == {0.0, 1.0} and torch.equal(entered[:, 0], entered[:, 1])


def test_the_hole_is_a_square_that_may_lie_over_the_edge():
    torch.manual_seed(0)
    holed = DifferentiableAugmentation(cutout=0.5)(torch.ones(3000, 1, 8, 8))
    hidden = holed[:, 0] == 0
    heights, widths = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), heights * widths)
    assert heights.max() == widths.max() == 4 and heights.min() == widths.min() == 2
    assert hidden.float().mean(0).max() - hidden.float().mean(0).min() < 0.2  # no place is spared


@pytest.mark.parametrize("field", ["translation", "cutout"])
def test_a_share_beyond_1_is_refused(field):
    with pytest.raises(ValueError, match=f"{field}\n.*less than or equal to 1"):
        DifferentiableAugmentation(**{field: 1.5})


def test_about_half_of_the_pictures_are_mirrored_left_to_right():
    torch.manual_seed(0)
    images = torch.arange(12.0).reshape(1, 1, 3, 4).expand(1000, 1, 3, 4)
    mirrored = mirrored_at_random(images)
    turned = (mirrored == images.flip(3)).all(3).all(2).all(1)
    assert torch.equal(mirrored[~turned], images[~turned]) and 0.45 < turned.float().mean() < 0.55


def test_noise_has_twice_the_factors_spread_and_is_clipped():
    generator = torch.Generator().manual_seed(0)
    grey = with_noise(torch.zeros(200, 1, 8, 8), 0.1, generator=generator)
    assert grey.std().item() == pytest.approx(0.2, rel=0.03) and grey.mean().item() == pytest.approx(0, abs=0.01)
    black = with_noise(torch.full((200, 1, 8, 8), -1.0), 0.5, generator=generator)
    assert (
        black.min() == -1 and black.max() == 1 and (black == -1).double().mean().item() == pytest.approx(0.5, abs=0.02)
    )


def test_a_pixel_becomes_white_as_often_as_it_is_bright():
    images = torch.tensor([-1.0, -0.5, 0.0, 0.8, 1.0]).expand(20_000, 1, 1, 5)
    found = binarised(images, generator=torch.Generator().manual_seed(0))
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    assert (found > 0).double().mean(0).flatten().tolist() == pytest.approx([0, 0.25, 0.5, 0.9, 1], abs=0.02)


@pytest.mark.parametrize("change", [binarised, lambda images, **how: with_noise(images, 0.5, **how)])
def test_the_generator_alone_decides_where_there_is_one(change):
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    one, same, other = (change(images, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    torch.manual_seed(3)
    one, other = change(images), change(images)
    torch.manual_seed(3)
    assert torch.equal(change(images), one) and not torch.equal(one, other)
