"""Labelled pictures from several sources in one form."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
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

from course_lib.data import drawn
from course_lib.data.download import (
    FASHION_MNIST_FILES,
    FLOWER_PHOTOS,
    MNIST_FILES,
    DownloadError,
    RemoteFile,
    obtain,
    obtain_folder,
)
from course_lib.data.folder import MEMORY_LIMIT_MB, Skipped, read
from course_lib.errors import InputError

DIGITS_TEST_IMAGES = 500
DRAWN_TRAIN_IMAGES, DRAWN_TEST_IMAGES = 2000, 500
FOLDER = "folder:"
RESIZED_BYTES = 1 << 30  # all pictures of a data set may take so much: 123 px of MNIST, 772 px of the digits
RESIZED_AT_ONCE_BYTES = 1 << 22
HASHED_AT_ONCE = 64


class ImageForm(NamedTuple):
    """What a network has to know of the images it is built for: how many channels, side in pixels, how many classes."""

    channels: int
    side_px: int
    classes: int


@dataclass(frozen=True)
class ImageData:
    """Images as uint8 tensors (n, channels, height, width), 0 to 255, and labels as int64 tensors (n,).

    What was skipped is there where the images come from a folder. Those of a large one lie in a file, and their tensors
    are views of it: take batches, for whatever changes or copies all of them takes memory for all of them.
    """

    name: str
    train_images: UInt8[Tensor, "train channels height width"]
    train_labels: Int[Tensor, " train"]
    test_images: UInt8[Tensor, "test channels height width"]
    test_labels: Int[Tensor, " test"]
    class_names: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()

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
            for some in part.split(HASHED_AT_ONCE):
                digest.update(some.contiguous().numpy().reshape(-1))
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


def flowers(*, side_px: int = 64, memory_limit_mb: float = MEMORY_LIMIT_MB) -> ImageData:
    """Load TensorFlow's 3,670 photos of daisies, dandelions, roses, sunflowers and tulips, squeezed into squares.

    They are read from `COURSE_DATA`/flower_photos as from any folder (see `folder.read`), and downloaded, 218 MB,
    where that is missing. Every tenth photo of a class is a test image: nobody published a split.

    Raises:
        InputError: the photos are not there and cannot be had, or the side cannot be.

    Source: The TensorFlow Team (2019), Flowers; CC BY 2.0, the authors are listed in the archive's LICENSE.txt.
    """
    try:
        photos = obtain_folder(FLOWER_PHOTOS, data_root())
    except DownloadError as error:
        raise InputError(
            f"flowers needs the folder flower_photos, with a folder of photos for each class, in {data_root()}: {error}"
        ) from error
    return ImageData("flowers", *read(photos, side_px, crop=False, memory_limit_mb=memory_limit_mb))


def petals(*, side_px: int = 16) -> ImageData:
    """Draw 2,000 training and 500 test images of flowers; the class is the number of petals (see `drawn.petals`)."""
    return _drawn("petals", drawn.petals, drawn.PETAL_CLASSES, side_px)


def apples(*, side_px: int = 16) -> ImageData:
    """Draw 2,000 training and 500 test images of apples; the class is the colour (see `drawn.apples`)."""
    return _drawn("apples", drawn.apples, drawn.APPLE_CLASSES, side_px)


# A source that takes a side makes its images for it; those of the others are resized.
SOURCES: dict[str, Callable[..., ImageData]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "flowers": flowers,
    "petals": petals,
    "apples": apples,
}


def from_folder(folder: Path, *, side_px: int = 64, memory_limit_mb: float = MEMORY_LIMIT_MB) -> ImageData:
    """Load the JPEG and PNG files of a folder, cropped to squares; for all that is done to them see `folder.read`.

    Raises:
        InputError: as for `folder.read`.
    """
    return ImageData(f"{FOLDER}{folder}", *read(folder, side_px, memory_limit_mb=memory_limit_mb))


def load(
    name: str | Path, *, side_px: int | None = None, validation: int = 0, memory_limit_mb: float = MEMORY_LIMIT_MB
) -> ImageData:
    """Load a data set by its name, or a folder of pictures as `folder:PATH` or by its Path.

    Args:
        side_px: the side of the images; None leaves them as they are, photos 64 and drawn ones 16. Those that are not
            in a folder may together take at most RESIZED_BYTES, one byte for each pixel and channel.
        validation: set so many training images aside, always the same ones, and let them take the place of the test
            images: so settings can be chosen without a look at those. Every class loses the same share.
        memory_limit_mb: pictures of a folder that take more million bytes than this stay in a file (see
            `folder.read`); then none can be set aside.

    Raises:
        InputError: no source has this name, or the folder, the side or the number cannot be.
    """
    source = _source(name)
    given = {"side_px": side_px, "memory_limit_mb": memory_limit_mb}
    taken = signature(source).parameters
    data = source(**{key: value for key, value in given.items() if key in taken and value is not None})
    if validation:
        if "memory_limit_mb" in taken and data.train_images.nbytes > memory_limit_mb * 1e6:
            raise InputError(
                f"validation={validation} would copy {data.train_images.nbytes / 1e6:,.0f} MB of training images, more "
                f"than memory_limit_mb={memory_limit_mb:g}: raise the limit, or use a smaller side_px"
            )
        data = _with_validation(data, validation)
    if side_px is None or side_px == data.side_px:
        return data
    _check_side(data.name, side_px, data.channels * (len(data.train_images) + len(data.test_images)))
    return replace(
        data, train_images=_resized(data.train_images, side_px), test_images=_resized(data.test_images, side_px)
    )


def _source(name: str | Path) -> Callable[..., ImageData]:
    if isinstance(name, str) and not name.startswith(FOLDER):
        if name not in SOURCES:
            raise InputError(f"data {name!r} is unknown: use {', '.join(SOURCES)}, or {FOLDER}PATH")
        return SOURCES[name]
    path = str(name).removeprefix(FOLDER) if isinstance(name, str) else name
    if path == "":
        raise InputError(f"{FOLDER} names no folder: use {FOLDER}PATH with the path of a folder of JPEG or PNG files")
    return partial(from_folder, Path(path))


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


def _check_side(name: str, side_px: int, channels: int) -> None:
    if side_px < 1:
        raise InputError(f"side_px={side_px} is no size of a picture: use a positive number of pixels")
    if (needed := channels * side_px**2) > RESIZED_BYTES:
        raise InputError(
            f"side_px={side_px} would make {name} {needed:,} bytes large, at most {RESIZED_BYTES:,} are allowed: "
            f"use at most {math.isqrt(RESIZED_BYTES // channels)}"
        )


def _drawn(name: str, draw: Callable[..., drawn.Drawn], class_names: tuple[str, ...], side_px: int) -> ImageData:
    count, train = DRAWN_TRAIN_IMAGES + DRAWN_TEST_IMAGES, DRAWN_TRAIN_IMAGES
    _check_side(name, side_px, 3 * count)
    images, labels = draw(count, side_px=side_px)
    return ImageData(name, images[:train], labels[:train], images[train:], labels[train:], class_names)


def _with_validation(data: ImageData, count: int) -> ImageData:
    images, labels = data.train_images, data.train_labels
    if not data.classes <= count <= len(labels) - data.classes:
        raise InputError(
            f"validation={count} of {len(labels)} training images cannot be set aside: "
            f"use {data.classes} to {len(labels) - data.classes}"
        )
    smallest = int(torch.bincount(labels, minlength=data.classes).argmin())
    if (found := int((labels == smallest).sum())) < 2:
        raise InputError(
            f"validation={count} takes from every class, but {data.class_names[smallest]!r} has {found} training "
            "images: put more into that class"
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
