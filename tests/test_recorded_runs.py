import pytest
import torch

from course_lib import recorded_runs, records
from course_lib.data.images import to_unit_range
from course_lib.errors import InputError
from course_lib.recipes import find
from course_lib.recipes.settings import from_record

FLOWERS = recorded_runs.FOLDER / "dcgan_flowers"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Keep the flowers' record once more, with pictures of which each pixel is another number."""
    monkeypatch.setattr(recorded_runs, "FOLDER", tmp_path / "runs")
    pixels = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recorded_runs.keep(FLOWERS, "again", {0: to_unit_range(pixels), 700: to_unit_range(pixels[:8].flip(1))})
    return pixels


def test_what_is_kept_of_a_run_reads_back_to_the_pixel(kept):
    found = recorded_runs.read("again")
    assert found.record == records.read(FLOWERS / "record.json")
    assert list(found.pictures) == [0, 700]
    assert torch.equal(found.pictures[0], kept)
    assert torch.equal(found.pictures[700], kept[:8].flip(1))


def test_a_name_that_nobody_kept_and_a_row_that_is_not_full_are_refused(kept):
    with pytest.raises(InputError, match="no run is kept as 'roses': use again"):
        recorded_runs.read("roses")
    with pytest.raises(InputError, match="found 7 pictures: give a multiple of 8"):
        recorded_runs.keep(FLOWERS, "more", {0: to_unit_range(kept[:7])})
    assert recorded_runs.names() == ["again"]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nnothing"])
def test_a_broken_picture_is_named(kept, content):
    (recorded_runs.FOLDER / "again" / "step-00000700.png").write_bytes(content)
    with pytest.raises(InputError, match="step-00000700.png is no PNG"):
        recorded_runs.read("again")


def test_a_picture_of_another_size_is_named(kept):
    folder = recorded_runs.FOLDER / "again"
    record = records.read(folder / "record.json")
    records.write(record | {"images": record["images"] | {"side_px": 32}}, folder)
    with pytest.raises(InputError, match="512 x 128 pixels .RGB., and 8 colour pictures of 32 px"):
        recorded_runs.read("again")


def test_a_record_that_was_changed_is_refused(kept):
    path = recorded_runs.FOLDER / "again" / "record.json"
    path.write_text(path.read_text().replace('"epochs": 60', '"epochs": 500'))
    with pytest.raises(InputError, match="is not what was written"):
        recorded_runs.read("again")


@pytest.mark.parametrize("name", recorded_runs.names())
def test_a_kept_run_shows_its_start_and_its_end_and_its_recipe_still_takes_its_settings(name):
    record, pictures = recorded_runs.read(name)
    identity = record["identity"]
    from_record(find(identity["recipe"]).family.Settings, identity["settings"])
    last = max(line["step"] for lines in record["history"].values() for line in lines)
    assert min(pictures) == 0 and max(pictures) == last
    assert len({len(images) for images in pictures.values()}) == 1
    assert all(images.float().std() > 10 for images in pictures.values())
