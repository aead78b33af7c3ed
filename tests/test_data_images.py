import dataclasses
import gzip
import hashlib
import random
import re
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image

from course_lib.data import images
from course_lib.data.download import RemoteFile
from course_lib.errors import InputError
from course_lib.files import DamagedError


def test_the_digits_and_their_split_are_fixed():
    data = images.digits()
    assert (data.train_images.shape, data.test_images.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    assert (data.train_images.dtype, data.train_images.min(), data.train_images.max()) == (torch.uint8, 0, 255)
    assert data.sha256() == "418e4c81bed6d204e157a57986260663a7d19851f6884aea1f53d7398b44dcba"


def test_no_training_digit_is_a_test_digit_and_all_are_there():
    data = images.digits()
    pixels = torch.cat([data.train_images, data.test_images]).reshape(1797, -1)
    assert len(torch.unique(pixels, dim=0)) == 1797
    assert torch.bincount(data.test_labels).min() >= 48  # the classes share the test set evenly


def test_pixels_become_minus_one_to_one():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.allclose(images.to_unit_range(pixels), torch.tensor([-1.0, -0.6, 1.0]))


def test_the_hash_notices_one_changed_pixel():
    data = images.digits()
    before = data.sha256()
    data.test_images[3, 0, 2, 2] ^= 1
    assert data.sha256() != before


def test_resizing_keeps_labels_and_type():
    data = images.load("digits", side_px=16)
    assert data.side_px == 16 and data.train_images.dtype == torch.uint8
    assert torch.equal(data.train_labels, images.digits().train_labels)


def test_validation_images_come_from_the_training_images_and_take_the_place_of_the_test_images():
    whole = images.digits()
    data = images.load("digits", validation=397)
    assert (len(data.train_images), len(data.test_images)) == (900, 397)

    def found(part):
        return {image.numpy().tobytes() for image in part}

    assert found(data.train_images) | found(data.test_images) == found(whole.train_images)
    assert not found(data.test_images) & (found(data.train_images) | found(whole.test_images))
    assert torch.equal(data.test_images, images.load("digits", validation=397).test_images)
    assert torch.bincount(data.test_labels).min() >= 38


@pytest.mark.parametrize("count", [9, 1288])
def test_a_number_of_validation_images_that_leaves_a_class_out_is_named(count):
    with pytest.raises(InputError, match=f"validation={count} of 1297 .* use 10 to 1287"):
        images.load("digits", validation=count)


def test_unknown_data_and_impossible_sizes_are_named():
    with pytest.raises(
        InputError,
        match="'mnits' is unknown: use digits, mnist, fashion_mnist, flowers, petals, apples, or folder:PATH",
    ):
        images.load("mnits")
    with pytest.raises(InputError, match="side_px=0"):
        images.load("digits", side_px=0)


@pytest.mark.parametrize("side_px, needed", [(773, "1,073,759,613"), (200_000, "71,880,000,000,000")])
def test_a_side_that_takes_too_much_memory_is_refused_before_any_is_taken(monkeypatch, side_px, needed):
    monkeypatch.setattr(images.transforms, "resize", lambda *_, **__: pytest.fail("it was resized"))
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("memory was taken"))
    message = f"side_px={side_px} .* digits {needed} bytes .* at most 1,073,741,824 are allowed: use at most 772"
    with pytest.raises(InputError, match=message):
        images.load("digits", side_px=side_px)


def test_resizing_some_at_a_time_is_resizing_all(monkeypatch):
    digits, sizes = images.digits(), []
    resize = images.transforms.resize
    monkeypatch.setattr(images, "RESIZED_AT_ONCE_BYTES", 100 * 12 * 12 + 1)
    monkeypatch.setattr(
        images.transforms, "resize", lambda some, *a, **k: sizes.append(len(some)) or resize(some, *a, **k)
    )
    data = images.load("digits", side_px=12)
    assert sizes == 12 * [100] + [97] + 5 * [100]
    assert torch.equal(data.train_images, resize(digits.train_images, [12, 12], antialias=True))
    assert torch.equal(data.test_images, resize(digits.test_images, [12, 12], antialias=True))


def test_the_form_is_what_a_network_is_built_for():
    assert images.digits().form == (1, 8, 10) and images.load("digits", side_px=12).form.side_px == 12
    data = images.digits()
    assert data.form == images.ImageForm(channels=data.channels, side_px=data.side_px, classes=data.classes)


def test_the_hash_of_many_pictures_does_not_depend_on_how_they_lie_in_memory():
    digits = images.digits()
    turned = digits.train_images.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    assert not turned.is_contiguous()
    assert dataclasses.replace(digits, train_images=turned).sha256() == digits.sha256()


# ── Drawn pictures and photos ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "classes"), [("petals", 4), ("apples", 3)])
def test_drawn_pictures_are_drawn_for_the_side_and_not_resized(monkeypatch, name, classes):
    monkeypatch.setattr(images.transforms, "resize", lambda *_, **__: pytest.fail("it was resized"))
    data = images.load(name)
    assert data.form == (3, 16, classes) and (len(data.train_images), len(data.test_images)) == (2000, 500)
    assert images.load(name, side_px=8).side_px == 8
    assert images.load(name).sha256() == data.sha256()
    together = torch.cat([data.train_images, data.test_images]).flatten(1)
    assert len(torch.unique(together, dim=0)) == 2500
    assert images.load(name, validation=500).test_images.shape == (500, 3, 16, 16)


@pytest.mark.parametrize("name", ["petals", "apples"])
def test_drawn_pictures_of_no_side_or_too_large_a_one_are_refused(monkeypatch, name):
    monkeypatch.setattr(images.drawn, name, lambda *_, **__: pytest.fail("they were drawn"))
    with pytest.raises(InputError, match="side_px=0 is no size"):
        images.load(name, side_px=0)
    with pytest.raises(InputError, match=f"side_px=379 would make {name} 1,077,307,500 bytes large, .* at most 378"):
        images.load(name, side_px=379)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Save forty photos of two classes as COURSE_DATA/flower_photos, a red part on the left of each."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr("course_lib.data.folder.user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.setattr(images, "FLOWER_PHOTOS", dataclasses.replace(images.FLOWER_PHOTOS, urls=()))
    for label, name in enumerate(("daisy", "roses")):
        folder = tmp_path / "flower_photos" / name
        folder.mkdir(parents=True)
        for number in range(20):
            photo = Image.new("RGB", (48, 24), (0, 100 * label, 10 * number))
            photo.paste((255, 0, 0), (0, 0, 8, 24))
            photo.save(folder / f"{number}.png")
    return tmp_path / "flower_photos"


def test_flowers_are_squeezed_into_squares_of_64_pixels(photos):
    data = images.load("flowers")
    assert data.form == (3, 64, 2) and data.class_names == ("daisy", "roses") and data.name == "flowers"
    assert (len(data.train_images), len(data.test_images)) == (36, 4)
    assert (data.train_images[:, 0, :, 0] == 255).all()  # the red part is still there
    assert images.load("flowers", side_px=16).form == (3, 16, 2)
    assert not list(photos.parent.glob("*.tgz"))


def test_flowers_that_cannot_be_had_are_named(photos):
    photos.rename(photos.parent / "elsewhere")
    with pytest.raises(InputError, match="flowers needs the folder flower_photos, .* could not be downloaded"):
        images.load("flowers")


def test_a_folder_is_loaded_by_name_and_by_path(photos, monkeypatch):
    (photos / "roses" / "letter.jpg").write_text("no picture")
    data = images.load(photos)
    assert data.form == (3, 64, 2) and data.name == f"folder:{photos}"
    assert (data.train_images[:, 0] == 0).all()  # cropped: the red part is gone
    assert [skipped.path for skipped in data.skipped] == [str(Path("roses", "letter.jpg"))]
    assert images.load(f"folder:{photos}").sha256() == data.sha256()
    monkeypatch.chdir(photos.parent)
    assert images.load("folder:flower_photos", side_px=16).form == (3, 16, 2)
    assert images.load(photos / "daisy").class_names == ("pictures",)
    monkeypatch.setenv("HOME", str(photos.parent))
    assert images.load("folder:~/flower_photos").sha256() == data.sha256()


def test_a_large_folder_has_the_same_hash_and_sets_no_copies_aside(photos):
    data = images.load(photos, memory_limit_mb=0.01)
    assert data.sha256() == images.load(photos).sha256()
    assert images.load(photos, validation=4).test_images.shape == (4, 3, 64, 64)
    with pytest.raises(InputError, match="validation=4 would copy 0 MB .* memory_limit_mb=0.01: raise the limit"):
        images.load(photos, memory_limit_mb=0.01, validation=4)


def test_validation_names_a_class_that_is_too_small_for_it(photos):
    for path in sorted((photos / "roses").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match="validation=4 takes from every class, but 'roses' has 1 training images"):
        images.load(photos, validation=4)


@pytest.mark.parametrize(
    "name", ["folder:", "folder:\0", "folder:/nowhere/at/all", "folder:~nobody/x", Path("nowhere")]
)
def test_a_folder_that_is_none_is_an_error_of_one_line(name):
    with pytest.raises(InputError) as raised:
        images.load(name)
    assert "\n" not in str(raised.value) and "folder" in str(raised.value)


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.numpy().tobytes()


COUNTS = {"train": 30, "t10k": 10}
LOADERS = [images.mnist, images.fashion_mnist]


def of_form(kind, count):
    """Make random pixels, or labels 0 to 9, as one of MNIST's files."""
    if "images" in kind:
        generator = torch.Generator().manual_seed(count)
        return idx(torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8))
    return idx((torch.arange(count) % 10).to(torch.uint8))


CONTENT = {
    f"{part}-{kind}-ubyte": of_form(kind, count)
    for part, count in COUNTS.items()
    for kind in ("images-idx3", "labels-idx1")
}
PACKED = {name: gzip.compress(content) for name, content in CONTENT.items()}
FILES = tuple(
    RemoteFile(
        name=f"{name}.gz",
        size_bytes=len(PACKED[name]),
        sha256=hashlib.sha256(PACKED[name]).hexdigest(),
        urls=(),
        unpacked_name=name,
        unpacked_bytes=len(content),
        unpacked_sha256=hashlib.sha256(content).hexdigest(),
    )
    for name, content in CONTENT.items()
)


@pytest.fixture(params=LOADERS, ids=["mnist", "fashion_mnist"])
def load_small(request, tmp_path, monkeypatch):
    """Lay small files of MNIST's form into COURSE_DATA, as if they were the published ones, and say who reads them."""
    monkeypatch.setattr(images, "MNIST_FILES", FILES)
    monkeypatch.setattr(images, "FASHION_MNIST_FILES", FILES)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    folder_of(request.param, tmp_path).mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder_of(request.param, tmp_path) / name).write_bytes(content)
    return request.param


@pytest.fixture
def folder(load_small, tmp_path):
    return folder_of(load_small, tmp_path)


def folder_of(loader, data_root):
    return data_root / {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[loader.__name__] / "raw"


def test_files_are_read_from_the_folder_that_is_named(load_small):
    data = load_small()
    assert data.train_images.shape == (30, 1, 28, 28) and data.test_images.shape == (10, 1, 28, 28)
    assert data.train_images.dtype == torch.uint8 and data.train_labels.dtype == torch.int64
    assert idx(data.train_images[:, 0]) == CONTENT["train-images-idx3-ubyte"]
    assert idx(data.test_images[:, 0]) == CONTENT["t10k-images-idx3-ubyte"]
    assert data.train_labels.tolist() == [number % 10 for number in range(30)]
    assert data.class_names[3] in ("3 - three", "Dress") and data.name == load_small.__name__


def test_reading_leaves_the_folder_as_it_was(load_small, folder):
    before = sorted(path.name for path in folder.parent.rglob("*"))
    load_small()
    assert sorted(path.name for path in folder.parent.rglob("*")) == before


def test_files_that_cannot_be_had_are_all_named(load_small, folder):
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(InputError, match="could not be downloaded") as raised:
        load_small()
    assert all(f"{name}(.gz)" in str(raised.value) for name in CONTENT) and str(folder) in str(raised.value)


def changed(content, position, byte):
    return content[:position] + bytes([byte]) + content[position + 1 :]


IMAGES, LABELS = CONTENT["t10k-images-idx3-ubyte"], CONTENT["t10k-labels-idx1-ubyte"]
DAMAGE = {
    "a web page": ("t10k-images-idx3-ubyte", b"<!DOCTYPE html><html>log in first</html>"),
    "nothing": ("t10k-images-idx3-ubyte", b""),
    "cut": ("t10k-images-idx3-ubyte", IMAGES[:-100]),
    "too long": ("t10k-images-idx3-ubyte", IMAGES + b"!"),
    "of floats": ("t10k-images-idx3-ubyte", changed(IMAGES, 2, 13)),
    "of four dimensions": ("t10k-images-idx3-ubyte", changed(IMAGES, 3, 4)),
    "huge": ("t10k-images-idx3-ubyte", changed(IMAGES, 4, 255)),
    "not square": ("t10k-images-idx3-ubyte", idx(torch.zeros(10, 14, 56, dtype=torch.uint8))),
    "of another side": ("t10k-images-idx3-ubyte", idx(torch.zeros(10, 14, 14, dtype=torch.uint8))),
    "one picture short": ("t10k-images-idx3-ubyte", of_form("images-idx3", 9)),
    "one label short": ("t10k-labels-idx1-ubyte", of_form("labels-idx1", 9)),
    "a label above 9": ("t10k-labels-idx1-ubyte", changed(LABELS, 11, 17)),
    "another label": ("t10k-labels-idx1-ubyte", changed(LABELS, 11, 8)),
    "the training labels": ("t10k-labels-idx1-ubyte", CONTENT["train-labels-idx1-ubyte"]),
    "one pixel": ("train-images-idx3-ubyte", changed(CONTENT["train-images-idx3-ubyte"], 9999, 7)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_with_what_to_do(load_small, folder, damage):
    name, content = DAMAGE[damage]
    assert content != CONTENT[name]
    (folder / name).write_bytes(content)
    with pytest.raises(DamagedError) as raised:
        load_small()
    message = str(raised.value)
    assert message.startswith(f"{folder / name} is not the published file: it has ") and "\n" not in message
    assert "Delete it and run again" in message


def test_a_damaged_file_is_unpacked_again_where_its_archive_is_there(load_small, folder):
    name, content = DAMAGE["one pixel"]
    whole = load_small().sha256()
    (folder / name).write_bytes(content)
    (folder / f"{name}.gz").write_bytes(PACKED[name])
    assert load_small().sha256() == whole
    assert (folder / name).read_bytes() == CONTENT[name]


def damaged(content, chance):
    """Damage a file in a random way: cut it, lengthen it, flip bits of its header or of the rest, or take another."""
    match chance.randrange(6):
        case 0:
            return content[: chance.randrange(len(content))]
        case 1:
            return content + chance.randbytes(chance.randrange(1, 100))
        case 2:
            return changed(content, position := chance.randrange(16), content[position] ^ 1 << chance.randrange(8))
        case 3:
            return changed(
                content, position := chance.randrange(len(content)), content[position] ^ 1 << chance.randrange(8)
            )
        case 4:
            return chance.randbytes(chance.randrange(len(content)))
        case _:
            return chance.choice([other for other in CONTENT.values() if other != content])


def test_whatever_happens_to_a_file_it_is_refused(load_small, folder, of_many):
    chance = random.Random(0)
    for _ in range(of_many(60, 1000)):
        name = chance.choice(list(CONTENT))
        (folder / name).write_bytes(damaged(CONTENT[name], chance))
        with pytest.raises(DamagedError, match=re.escape(f"{folder / name} is not the published file")):
            load_small()
        (folder / name).write_bytes(CONTENT[name])
    load_small()
