import struct

import pytest
import torch

from course_lib.data import images
from course_lib.data.download import RemoteFile
from course_lib.errors import InputError


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
    with pytest.raises(InputError, match="'mnits' is unknown: use digits, mnist, fashion_mnist"):
        images.load("mnits")
    with pytest.raises(InputError, match="side_px=0"):
        images.load("digits", side_px=0)


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.numpy().tobytes()


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Lay files of MNIST's form into COURSE_DATA; torchvision reads them as the real ones."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    content = {}
    for part, count in {"train": 30, "t10k": 10}.items():
        pixels = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        labels = (torch.arange(count) % 10).to(torch.uint8)
        for kind, array in {"images-idx3": pixels, "labels-idx1": labels}.items():
            content[f"{part}-{kind}-ubyte"] = idx(array)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    return folder


def test_mnist_is_read_from_the_folder_that_is_named(small_mnist):
    data = images.mnist()
    assert data.train_images.shape == (30, 1, 28, 28) and data.test_images.shape == (10, 1, 28, 28)
    assert data.train_labels.tolist() == [number % 10 for number in range(30)]
    assert data.class_names[3] == "3 - three"


def test_reading_leaves_the_folder_as_it_was(small_mnist):
    before = sorted(path.name for path in small_mnist.parent.rglob("*"))
    images.mnist()
    assert sorted(path.name for path in small_mnist.parent.rglob("*")) == before


def test_a_damaged_file_is_told_with_its_folder(small_mnist):
    whole = (small_mnist / "train-images-idx3-ubyte").read_bytes()
    (small_mnist / "train-images-idx3-ubyte").write_bytes(whole[:-100])
    with pytest.raises(InputError, match="MNIST files in .* cannot be read"):
        images.mnist()
