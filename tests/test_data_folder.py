import errno
import io
import logging
import os
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from course_lib.data import folder as pictures
from course_lib.data.folder import read
from course_lib.errors import InputError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep decoded pictures below the folder of the test."""
    monkeypatch.setattr(pictures, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "course-lib" / "folders"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mine"
    path.mkdir()
    return path


def save(path, colour=RED, size=(16, 16), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **how)


def fill(folder, count=12):
    """Save as many PNG files; the red of each says its number."""
    for number in range(count):
        save(folder / f"{number:04}.png", (number, 0, 0))


def one(folder, image, name="0.png", side_px=16, **how):
    """Save one picture, and another beside it to test with; return how the first is read."""
    image.save(folder / name, **how)
    save(folder / "other.png")
    found = read(folder, side_px)
    assert found.skipped == () and found.train_images.shape[0] == 1
    return found.train_images[0]


def same(found, wanted):
    """Say whether two readings gave the same pictures."""
    return all(torch.equal(a, b) for a, b in zip(found[:4], wanted[:4], strict=True)) and found[4:] == wanted[4:]


def noise(size=(64, 48), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


# ── Which files ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_hundred_mixed_files_the_three_unusable_ones_are_named(folder, caplog):
    kinds = {"RGB": ".jpg", "L": ".jpeg", "RGBA": ".png", "P": ".PNG"}
    for number in range(197):
        mode, suffix = list(kinds.items())[number % 4]
        noise((20 + number % 7, 30 - number % 5), number).convert(mode).save(folder / f"{number:03}{suffix}")
    whole = (folder / "000.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "letter.jpg").write_text("Dear Ada, here are the pictures.")
    save(folder / "tracker.png", size=(1, 1))
    with caplog.at_level(logging.WARNING):
        found = read(folder, 16)
    assert (len(found.train_images), len(found.test_images)) == (177, 20)
    assert found.train_images.shape[1:] == (3, 16, 16) and found.class_names == ("pictures",)
    assert [skipped.path for skipped in found.skipped] == ["broken.jpg", "letter.jpg", "tracker.png"]
    reasons = [skipped.reason for skipped in found.skipped]
    assert "runcated" in reasons[0] and "no JPEG or PNG inside" in reasons[1] and "has 1 x 1 pixels" in reasons[2]
    assert len(caplog.messages) == 3 and caplog.messages[0].startswith("skipped broken.jpg: ")
    assert same(read(folder, 16), found)  # the list is kept with the pictures


def test_many_skipped_files_are_counted_and_not_all_listed(folder, caplog):
    fill(folder)
    for number in range(30):
        (folder / f"letter_{number}.jpg").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        assert len(read(folder, 8).skipped) == 30
    assert len(caplog.messages) == 11 and caplog.messages[-1] == f"skipped 20 more files of {folder}"


def test_sub_folders_are_classes_and_what_lies_beside_them_is_one_more(folder):
    fill(folder / "cats")
    fill(folder / "apes" / "big", 3)
    fill(folder, 2)
    (folder / "empty").mkdir()
    (folder / "all_broken").mkdir()
    (folder / "all_broken" / "x.jpg").write_bytes(b"")
    fill(folder / ".hidden")
    found = read(folder, 8)
    assert found.class_names == ("apes", "cats", "pictures")
    assert found.train_labels.bincount().tolist() == [2, 10, 1]
    assert found.test_labels.bincount().tolist() == [1, 2, 1]
    assert [skipped.path for skipped in found.skipped] == [str(Path("all_broken", "x.jpg"))]


def test_the_second_picture_of_a_class_and_every_tenth_after_it_are_set_aside(folder):
    fill(folder, 24)
    (folder / "0000.png").write_bytes(b"broken, and so it does not count")
    found = read(folder, 8)
    assert sorted(found.test_images[:, 0, 0, 0].tolist()) == [2, 12, 22]
    numbers = found.train_images[:, 0, 0, 0].tolist()
    assert numbers == [n for n in range(1, 24) if n not in (2, 12, 22)]


def test_rows_and_labels_belong_together(folder):
    for label, colour in enumerate((RED, GREEN, BLUE)):
        for number in range(5 * label + 2):
            save(folder / f"class {label}" / f"{number}.png", colour)
    found = read(folder, 8)
    for images, labels in (found[:2], found[2:4]):
        assert torch.equal(images[:, :, 4, 4].argmax(dim=1), labels)


def test_other_formats_are_named_and_files_of_other_kinds_passed_over(folder):
    fill(folder)
    for name in ("a.webp", "b.HEIC", "notes.txt", ".hidden.jpg", "Thumbs.db"):
        (folder / name).write_bytes(b"something")
    found = read(folder, 8)
    assert [skipped.path for skipped in found.skipped] == ["a.webp", "b.HEIC"]
    assert "save it as JPEG or PNG" in found.skipped[0].reason


def test_links_that_lead_out_are_refused_and_links_within_are_read(folder, tmp_path):
    fill(folder, 3)
    fill(tmp_path / "private", 3)
    (folder / "out.png").symlink_to(tmp_path / "private" / "0000.png")
    (folder / "out_too.png").symlink_to("../private/0000.png")
    (folder / "folder").symlink_to(tmp_path / "private")
    (folder / "in.png").symlink_to(folder / "0001.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "nowhere.png").symlink_to(folder / "nothing.png")
    found = read(folder, 8)
    assert len(found.train_images) + len(found.test_images) == 4
    assert [skipped.path for skipped in found.skipped] == [
        "folder",
        "loop.png",
        "nowhere.png",
        "out.png",
        "out_too.png",
    ]
    reasons = {skipped.path: skipped.reason for skipped in found.skipped}
    assert reasons["out.png"] == reasons["out_too.png"] == "is a link that leads out of the folder"
    assert reasons["folder"] == "is a link to a folder"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_opened(folder):
    fill(folder)
    os.mkfifo(folder / "pipe.png")
    assert read(folder, 8).skipped == (pictures.Skipped("pipe.png", "is no file"),)


def test_a_folder_may_itself_be_a_link(folder, tmp_path):
    fill(folder)
    (tmp_path / "link").symlink_to(folder)
    assert len(read(tmp_path / "link", 8).test_images) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_cannot_be_printed_are_told_as_they_can(folder, caplog):
    fill(folder)
    (folder / "two\nlines\udcff.jpg").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        found = read(folder, 8)
    assert found.skipped[0].path == r"'two\nlines\udcff.jpg'" and "\n" not in caplog.messages[0]


# ── What cannot be ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    save(folder / "a.png")
    for path, reason in ((folder / "none", "No such file"), (folder / "a.png", "Not a directory")):
        with pytest.raises(InputError, match=f"{path.name}' cannot be read .{reason}.*: name a folder"):
            read(path, 8)
    for name in ("\0", "a" * 5000):
        with pytest.raises(InputError, match="cannot be read"):
            read(Path(name), 8)
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(InputError, match="Permission denied"):
        read(folder, 8)


def test_an_empty_folder_and_one_without_enough_pictures_are_told_apart(folder):
    with pytest.raises(InputError, match=r"has no JPEG or PNG files .* put some there"):
        read(folder, 8)
    (folder / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"has 0 usable pictures \(1 files were skipped\)"):
        read(folder, 8)
    save(folder / "cats" / "b.png")
    save(folder / "dogs" / "c.png")
    with pytest.raises(InputError, match="has 2 usable pictures .* no class has two"):
        read(folder, 8)


@pytest.mark.parametrize("side_px", [0, -1, 1025, 10**30])
def test_a_side_that_cannot_be_is_named(folder, side_px):
    with pytest.raises(InputError, match=f"side_px={side_px} .* use 1 to 1024"):
        read(folder, side_px)


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_limit_that_cannot_be_is_named(folder, limit):
    with pytest.raises(InputError, match=f"memory_limit_mb={limit}"):
        read(folder, 8, memory_limit_mb=limit)


# ── Decoding ──────────────────────────────────────────────────────────────────────────────────────────────────────


def png_that_claims(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(40_000, 30_000), (10_000, 10_000), (50_000_001, 1)])
def test_a_picture_that_claims_too_many_pixels_is_not_decoded(folder, monkeypatch, size):
    fill(folder)
    read(folder, 8)
    (folder / "bomb.png").write_bytes(png_that_claims(*size))
    load, loaded = ImageFile.ImageFile.load, []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loaded.append(self.size) or load(self))
    assert read(folder, 8).skipped == (pictures.Skipped("bomb.png", "claims more than 50,000,000 pixels"),)
    assert len(loaded) >= 12 and size not in loaded


@pytest.mark.parametrize(("side", "usable"), [(7, False), (8, True)])
def test_the_smallest_picture_has_eight_pixels_a_side(folder, side, usable):
    fill(folder)
    save(folder / "small.png", size=(side, 100))
    found = read(folder, 16)
    assert bool(found.skipped) != usable and len(found.train_images) + len(found.test_images) == 12 + usable


# Orientation 6: the picture has to be turned by a quarter to the right to be upright.
@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 180), (6, -90), (8, 90)])
def test_a_picture_is_turned_as_its_exif_data_say(folder, orientation, turn):
    image = Image.new("RGB", (64, 64), BLUE)
    image.paste(RED, (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = one(folder, image, "0.jpg", exif=exif, quality=95)
    upright = np.array(image.rotate(turn).resize((16, 16), Image.Resampling.BILINEAR))
    assert (found.int() - torch.from_numpy(upright).permute(2, 0, 1).int()).abs().max() < 10


def test_the_middle_square_is_kept_or_the_whole_squeezed(folder):
    image = Image.new("RGB", (48, 16), RED)
    image.paste(GREEN, (16, 0, 32, 16))
    found = one(folder, image)
    assert torch.equal(found, torch.tensor(GREEN, dtype=torch.uint8)[:, None, None].expand(3, 16, 16))
    squeezed = read(folder, 16, crop=False).train_images[0]
    assert squeezed[:, 8, 0].tolist() == list(RED) and squeezed[:, 8, 8].tolist() == list(GREEN)


def test_transparent_pixels_are_white(folder):
    image = Image.new("RGBA", (16, 16), (*RED, 0))
    image.paste((*BLUE, 255), (0, 8, 16, 16))
    image.paste((*BLUE, 128), (8, 8, 16, 16))
    found = one(folder, image)
    assert found[:, 0, 0].tolist() == list(WHITE) and found[:, 15, 0].tolist() == list(BLUE)
    assert found[:, 15, 15].tolist() == [127, 127, 255]


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_grey_pictures_and_palettes_become_rgb(folder, mode):
    image = Image.new("L", (16, 16), 0)
    image.paste(255, (0, 8, 16, 16))
    found = one(folder, image.convert(mode))
    assert found[:, 0, 0].tolist() == [0, 0, 0] and found[:, 15, 0].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_is_laid_on_white(folder):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (0, 8, 16, 16))
    found = one(folder, image, transparency=0)
    assert found[:, 0, 0].tolist() == list(WHITE) and found[:, 15, 0].tolist() == list(BLUE)


def test_sixteen_bits_are_scaled_and_not_clipped(folder):
    grey = np.tile(np.arange(256, 65536, 4096, dtype=np.uint16), (16, 1))
    found = one(folder, Image.fromarray(grey))
    assert torch.equal(found, torch.from_numpy(grey // 256).to(torch.uint8).expand(3, 16, 16))


def test_cmyk_becomes_rgb(folder):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = one(folder, image, "0.jpg", quality=100)
    assert (found[:, 8, 8].int() - torch.tensor(RED)).abs().max() < 4


def test_a_large_jpeg_looks_as_if_all_of_it_had_been_decoded(folder):
    # A smooth picture: noise would differ, for the decoder averages blocks and the resizing weighs pixels.
    x, y = np.meshgrid(np.linspace(0, 1, 800), np.linspace(0, 1, 600))
    image = Image.fromarray((255 * np.stack([x, y, x * y], axis=2)).astype(np.uint8))
    found = one(folder, image, "0.jpg", quality=95)
    wanted = image.crop((100, 0, 700, 600)).resize((16, 16), Image.Resampling.BILINEAR)
    assert (found.int() - torch.from_numpy(np.array(wanted)).permute(2, 0, 1).int()).abs().max() < 6


def test_whatever_happens_to_a_file_it_is_read_or_skipped(folder, of_many):
    chance = random.Random(0)
    contents = []
    for form, mode in (("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("JPEG", "CMYK"), ("PNG", "RGBA")):
        memory = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        noise((24, 16)).convert(mode).save(memory, form, exif=exif)
        contents.append(memory.getvalue())
    skipped = 0
    for _ in range(of_many(300, 20_000)):
        content = bytearray(chance.choice(contents))
        for _ in range(chance.choice((1, 1, 3, 20))):
            content[chance.randrange(min(len(content), chance.choice((40, 200, 5000))))] = chance.randrange(256)
        (folder / "x.jpg").write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
        try:
            assert pictures._pixels(folder / "x.jpg", 8, crop=True).shape == (3, 8, 8)
        except pictures._UnusableError as error:
            skipped += 1
            assert "\n" not in str(error)
    assert skipped > 50


# ── What is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def decoded(monkeypatch):
    """Tell which files are decoded."""
    names, pixels = [], pictures._pixels
    monkeypatch.setattr(pictures, "_pixels", lambda path, *a, **k: names.append(path.name) or pixels(path, *a, **k))
    return names


def mapped(tensor):
    """Say whether a tensor lies in a file of the cache (Linux only)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return ".pixels" in line
    return False


def test_a_large_set_is_read_from_a_file_and_is_the_same(folder):
    fill(folder, 25)
    (folder / "x.jpg").write_bytes(b"no picture")
    plain, large = read(folder, 16), read(folder, 16, memory_limit_mb=0.001)
    assert same(plain, large)
    assert large.train_images.is_contiguous() and large.test_images.is_contiguous()
    if sys.platform == "linux":
        assert [mapped(found.train_images) for found in (plain, large)] == [False, True]


def test_pictures_are_decoded_once(folder, decoded):
    fill(folder)
    first = read(folder, 16)
    assert len(decoded) == 12
    assert same(read(folder, 16), first) and same(read(folder, 16, memory_limit_mb=0), first)
    assert len(decoded) == 12
    read(folder, 8)
    read(folder, 16, crop=False)
    assert len(decoded) == 36  # other pixels, and each kind is kept for itself
    assert same(read(folder, 16), first)
    assert len(decoded) == 36


def changed(folder):
    save(folder / "0003.png", GREEN)


def touched(folder):
    os.utime(folder / "0003.png", ns=(1, 1))


def added(folder):
    save(folder / "9999.png", GREEN)


def removed(folder):
    (folder / "0003.png").unlink()


def moved(folder):
    (folder / "0003.png").rename(folder / "0033.png")


@pytest.mark.parametrize("change", [changed, touched, added, removed, moved])
def test_they_are_decoded_again_where_a_file_has_changed(folder, decoded, cache, change):
    fill(folder)
    read(folder, 16)
    change(folder)
    decoded.clear()
    found = read(folder, 16)
    assert len(decoded) == len(list(folder.iterdir()))
    assert len(found.train_images) + len(found.test_images) == len(decoded)
    assert len(list(cache.glob("*.pixels"))) == 1  # what is stale does not pile up


def test_another_version_of_the_decoder_decodes_again(folder, decoded, monkeypatch):
    fill(folder)
    read(folder, 16)
    monkeypatch.setattr(pictures.PIL, "__version__", "99")
    read(folder, 16)
    assert len(decoded) == 24


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["pixels", "json"])
@pytest.mark.parametrize("damage", [flipped, Path.unlink, lambda path: path.write_bytes(b"")])
def test_what_is_damaged_is_made_again(folder, decoded, cache, suffix, damage):
    fill(folder)
    whole = read(folder, 16)
    damage(next(cache.glob(f"*.{suffix}")))
    assert same(read(folder, 16), whole) and len(decoded) == 24
    assert same(read(folder, 16), whole) and len(decoded) == 24


def test_what_is_written_into_the_pictures_stays_out_of_the_file(folder, decoded):
    fill(folder)
    first = read(folder, 16, memory_limit_mb=0)
    first.train_images.fill_(7)
    assert read(folder, 16, memory_limit_mb=0).train_images[:, 0, 0, 0].tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert len(decoded) == 12


def test_a_reading_keeps_its_pictures_when_they_are_made_again(folder):
    fill(folder)
    before = read(folder, 16, memory_limit_mb=0)
    changed(folder)
    after = read(folder, 16, memory_limit_mb=0)
    assert before.train_images[2, 0, 0, 0] == 3 and after.train_images[2, 1, 0, 0] == 255


def test_a_cache_that_cannot_be_written_stops_only_a_large_set(folder, cache):
    fill(folder)
    whole = read(folder, 16)
    for path in cache.iterdir():
        path.unlink()
    cache.rmdir()
    cache.write_bytes(b"no folder")
    assert same(read(folder, 16), whole)
    with pytest.raises(InputError, match=r"take 0 MB, more than memory_limit_mb=0.001, .* smaller side_px"):
        read(folder, 16, memory_limit_mb=0.001)


def test_a_full_disk_leaves_nothing_half(folder, cache, monkeypatch):
    fill(folder)
    decode = pictures._decode

    def full(files, out, *how, **more):
        decode(files, out, *how, **more)
        if not isinstance(out, io.BytesIO):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pictures, "_decode", full)
    with pytest.raises(InputError, match="No space left"):
        read(folder, 16, memory_limit_mb=0)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other ways")
def test_batches_of_a_large_set_take_no_memory_for_the_whole_of_it(folder):
    # 64 pictures of 1,024 px: 201 MB decoded, twenty times the limit.
    for number in range(64):
        save(folder / f"{number}.png", (number, 0, 0), size=(8, 8))

    def anonymous_mb():
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1e3

    def growth(limit_mb):
        before, most = anonymous_mb(), 0.0
        found = read(folder, 1024, memory_limit_mb=limit_mb)
        order = torch.randperm(len(found.train_images), generator=torch.Generator().manual_seed(0))
        for indices in [*order.split(4), *order.split(4)]:
            batch = found.train_images[indices]
            assert batch.amax() <= 63
            most = max(most, anonymous_mb() - before)
        return most

    assert growth(10) < 100
    assert growth(1000) > 190  # the measurement sees what lies in memory
