"""Labelled pictures from several sources in one form."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from platformdirs import user_cache_path
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.transforms.v2 import functional as transforms

from course_lib.data.download import FASHION_MNIST_FILES, MNIST_FILES, DownloadError, RemoteFile, obtain
from course_lib.errors import InputError

DIGITS_TEST_IMAGES = 500
RESIZED_BYTES = 1 << 30  # all pictures of a data set may take so much: 123 px of MNIST, 772 px of the digits
RESIZED_AT_ONCE_BYTES = 1 << 22


class ImageForm(NamedTuple):
    """What a network has to know of the images it is built for: how many channels, side in pixels, how many classes."""

    channels: int
    side_px: int
    classes: int


@dataclass(frozen=True)
class ImageData:
    """Images as uint8 tensors (n, channels, height, width), 0 to 255, and labels as int64 tensors (n,)."""

    name: str
    train_images: UInt8[Tensor, "train channels height width"]
    train_labels: Int[Tensor, " train"]
    test_images: UInt8[Tensor, "test channels height width"]
    test_labels: Int[Tensor, " test"]
    class_names: tuple[str, ...]

    @property
    def form(self) -> ImageForm:
        return ImageForm(self.channels, self.side_px, self.classes)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    @property
    def side_px(self) -> int:
        return self.train_images.shape[2]

    def sha256(self) -> str:
        """Name the decoded pixels and labels, so that a record can say what it was measured on."""
        digest = hashlib.sha256()
        for part in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(str(tuple(part.shape)).encode())
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


def to_unit_range(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Scale pixels from 0..255 to [-1, 1], the range of tanh; nothing else in the course rescales pixels."""
    return images.float() / 127.5 - 1


def data_root() -> Path:
    """The folder of downloaded data: `COURSE_DATA`, or a cache folder of the user's."""
    named = os.environ.get("COURSE_DATA")
    return Path(named) if named else user_cache_path("course-lib") / "data"


def digits() -> ImageData:
    """Load scikit-learn's 1,797 handwritten digits: 8 x 8 px, one channel, ten classes, no download.

    The split is fixed: 1,297 training and 500 test images, drawn at random (seed 0) with the classes in the same
    proportions in both. The sixteen grey levels become 0 to 255.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository. scikit-learn carries its test part.
    """
    source = load_digits()
    pixels = np.rint(source.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=DIGITS_TEST_IMAGES, random_state=0, stratify=source.target
    )
    images, labels = torch.from_numpy(pixels), torch.from_numpy(source.target.astype(np.int64))
    names = tuple(str(digit) for digit in range(10))
    return ImageData("digits", images[train], labels[train], images[test], labels[test], names)


def mnist() -> ImageData:
    """Load MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 px, one channel.

    The split is the published one. The files are read from `COURSE_DATA`/MNIST/raw, and downloaded where missing. The
    SHA-256 of each is checked every time, which takes less than a tenth of a second for all four.

    Raises:
        InputError: a file is not there and cannot be had, or one is not what was published, by as little as a bit;
            says which, where, and what to do.

    Source: Y. LeCun, C. Cortes and C. Burges, the MNIST database of handwritten digits.
    """
    return _from_idx_files("mnist", MNIST, MNIST_FILES)


def fashion_mnist() -> ImageData:
    """Load Fashion-MNIST: as MNIST in shape, size and split, with ten kinds of clothing instead of digits.

    Raises:
        InputError: as for `mnist`.

    Source: Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747.
    """
    return _from_idx_files("fashion_mnist", FashionMNIST, FASHION_MNIST_FILES)


SOURCES: dict[str, Callable[[], ImageData]] = {"digits": digits, "mnist": mnist, "fashion_mnist": fashion_mnist}


def load(name: str, *, side_px: int | None = None, validation: int = 0) -> ImageData:
    """Load a data set by its name.

    Args:
        side_px: resize the images to this side; None leaves them as they are. Together they may take at most
            RESIZED_BYTES, one byte for each pixel and channel.
        validation: set so many training images aside, always the same ones, and let them take the place of the test
            images: so settings can be chosen without a look at those. Every class loses the same share.

    Raises:
        InputError: no source has this name, or the side or the number cannot be.
    """
    if name not in SOURCES:
        raise InputError(f"data {name!r} is unknown: use {', '.join(SOURCES)}")
    data = SOURCES[name]()
    if validation:
        data = _with_validation(data, validation)
    if side_px is None or side_px == data.side_px:
        return data
    if side_px < 1:
        raise InputError(f"side_px={side_px} is no size of a picture: use a positive number of pixels")
    channels = data.channels * (len(data.train_images) + len(data.test_images))
    if (needed := channels * side_px**2) > RESIZED_BYTES:
        raise InputError(
            f"side_px={side_px} would make {data.name} {needed:,} bytes large, at most {RESIZED_BYTES:,} are allowed: "
            f"use at most {math.isqrt(RESIZED_BYTES // channels)}"
        )
    return replace(
        data, train_images=_resized(data.train_images, side_px), test_images=_resized(data.test_images, side_px)
    )


def _resized(
    images: UInt8[Tensor, "n channels height width"], side_px: int
) -> UInt8[Tensor, "n channels {side_px} {side_px}"]:
    """Resize some images at a time: on some processors torch computes in floats, which take five times as much."""
    count, channels = images.shape[:2]
    resized = torch.empty(count, channels, side_px, side_px, dtype=torch.uint8)
    at_once = max(1, RESIZED_AT_ONCE_BYTES // (channels * side_px**2))
    for before, after in zip(images.split(at_once), resized.split(at_once), strict=True):
        after.copy_(transforms.resize(before, [side_px, side_px], antialias=True))
    return resized


def _with_validation(data: ImageData, count: int) -> ImageData:
    images, labels = data.train_images, data.train_labels
    if not data.classes <= count <= len(labels) - data.classes:
        raise InputError(
            f"validation={count} of {len(labels)} training images cannot be set aside: "
            f"use {data.classes} to {len(labels) - data.classes}"
        )
    stay, aside = train_test_split(np.arange(len(labels)), test_size=count, random_state=0, stratify=labels.numpy())
    return replace(
        data,
        train_images=images[stay],
        train_labels=labels[stay],
        test_images=images[aside],
        test_labels=labels[aside],
    )


def _from_idx_files(name: str, source: type[MNIST], files: tuple[RemoteFile, ...]) -> ImageData:
    folder = data_root() / source.__name__ / "raw"
    try:
        train_images, train_labels, test_images, test_labels = (_read_idx(obtain(file, folder)) for file in files)
    except DownloadError as error:
        names = ", ".join(f"{file.unpacked_name}(.gz)" for file in files)
        raise InputError(f"{source.__name__} needs {names} in {folder}: {error}") from error
    return ImageData(
        name,
        train_images[:, None],
        train_labels.long(),
        test_images[:, None],
        test_labels.long(),
        tuple(source.classes),
    )


def _read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """Read an idx file of bytes: two zeros, 8 for bytes, how many sizes follow, the sizes (four bytes each), the bytes.

    The SHA-256 of such a file has been checked, and so its sizes have.
    """
    content = np.fromfile(path, np.uint8)
    start = 4 + 4 * int(content[3])
    sizes = content[4:start].view(">u4")
    return torch.from_numpy(content[start:].reshape(sizes))
