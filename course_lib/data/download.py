"""Fetch data files once, check them always, and say plainly what went wrong: the only file that uses the network."""

import gzip
import os
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, BinaryIO, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from course_lib.errors import InputError
from course_lib.files import DamagedError, sha256_of

BLOCK_BYTES = 1 << 16
SILENT_SECONDS = 30  # a mirror that sends nothing for so long is given up,
SLOW_SECONDS, SLOW_BYTES = 60, 1 << 16  # and one that sends less than so many bytes in so long, its header included


class DownloadError(InputError):
    """A file could not be had, or is not what it should be."""


class DiskError(DownloadError):
    """The disk refused (full, read-only, no permission); no mirror can mend that, so none is tried."""


class _MirrorError(Exception):
    """One mirror failed; the next may not."""


class _Head(NamedTuple):
    """What the head of an answer says: its status, and how many bytes follow where it says so."""

    status: int
    length: int | None


class _ContinuationError(_MirrorError):
    """A mirror could not continue the .part to a correct file; it may still have the whole."""


@dataclass(frozen=True)
class RemoteFile:
    """A gzip'ed file or folder as it is published, and the addresses it may come from, best first.

    Sizes are exact, in bytes, and sums are SHA-256 in hexadecimal: of the archive, and of what it unpacks to. A folder
    has no such sum: there the name is that of the folder, and the archive is one of tar's.
    """

    name: str
    size_bytes: int
    sha256: str
    urls: tuple[str, ...]
    unpacked_name: str
    unpacked_bytes: int = 0
    unpacked_sha256: str = ""


def _idx(
    mirrors: tuple[str, ...], name: str, size_bytes: int, sha256: str, unpacked_bytes: int, unpacked_sha256: str
) -> RemoteFile:
    urls = tuple(f"{mirror}/{name}.gz" for mirror in mirrors)
    return RemoteFile(f"{name}.gz", size_bytes, sha256, urls, name, unpacked_bytes, unpacked_sha256)


# The mirrors are torchvision's (0.29), and one more for each set, which comes last.
# Sizes and sums of the archives are those of TensorFlow Datasets (url_checksums/mnist.txt and fashion_mnist.txt); other
# projects list the same, some beside the MD5s that torchvision checks. The second line of each is the unpacked file:
# MNIST's were taken from the files, and `gzip -6` turns those into archives of the published lengths. Fashion-MNIST's
# are what at least four unrelated projects list, one for archives with the publisher's MD5s.
_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "http://yann.lecun.com/exdb/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
)
# fmt: off
MNIST_FILES: tuple[RemoteFile, ...] = (
    _idx(_MNIST, "train-images-idx3-ubyte",
         9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
         47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    _idx(_MNIST, "train-labels-idx1-ubyte",
         28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
         60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    _idx(_MNIST, "t10k-images-idx3-ubyte",
         1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
         7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    _idx(_MNIST, "t10k-labels-idx1-ubyte",
         4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
         10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
)
FASHION_MNIST_FILES: tuple[RemoteFile, ...] = (
    _idx(_FASHION, "train-images-idx3-ubyte",
         26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
         47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    _idx(_FASHION, "train-labels-idx1-ubyte",
         29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
         60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    _idx(_FASHION, "t10k-images-idx3-ubyte",
         4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
         7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    _idx(_FASHION, "t10k-labels-idx1-ubyte",
         5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
         10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)
# fmt: on
# Size and sum are those of TensorFlow Datasets (url_checksums/tf_flowers.txt); unrelated projects list the same.
FLOWER_PHOTOS = RemoteFile(
    name="flower_photos.tgz",
    size_bytes=228_813_984,
    sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
    urls=(
        "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
        "http://download.tensorflow.org/example_images/flower_photos.tgz",
    ),
    unpacked_name="flower_photos",
)


def obtain(file: RemoteFile, folder: Path) -> Path:
    """Return the path of the unpacked file in the folder, whole and correct.

    Where it is missing it is unpacked, and before that downloaded if need be. Where it is damaged it is unpacked again
    if the correct archive lies beside it, and otherwise left alone: perhaps somebody wants it.

    Raises:
        DamagedError: it is damaged and there is no archive; says how, and what to do.
        DownloadError: as for `fetch` and `unpack`.
    """
    path = folder / file.unpacked_name
    with _disk(path):
        fault = _fault(path, file.unpacked_bytes, file.unpacked_sha256)
        if not fault:
            return path
        if path.is_file():
            if _fault(folder / file.name, file.size_bytes, file.sha256):
                raise DamagedError(
                    f"{path} is not the published file: {fault}. Delete it and run again, which "
                    "downloads it, or set COURSE_DATA to another folder"
                )
            tqdm.write(f"{path} is not the published file: {fault}. Unpacking it again", file=sys.stderr)
    fetch(file, folder)
    return unpack(file, folder)


def obtain_folder(file: RemoteFile, folder: Path) -> Path:
    """Return the path of the unpacked folder in the folder; a missing one is downloaded and unpacked.

    One that is there is taken as it is: its files may have been made smaller, say.

    Raises:
        DownloadError: as for `fetch`, or the archive is damaged or holds no such folder.
        DiskError: the disk refused; says where and why.
    """
    target, part = folder / file.unpacked_name, folder / f"{file.unpacked_name}.part"
    with _disk(target):
        if target.is_dir():
            return target
    archive = fetch(file, folder)
    with _disk(part), _alone(target):
        if not target.is_dir():  # unless the process we waited for has done it
            try:
                with tarfile.open(archive, "r:gz") as source:
                    source.extractall(part, filter="data")  # nothing outside the folder, no links, no devices
                if not (part / file.unpacked_name).is_dir():
                    raise DownloadError(f"{archive} holds no folder {file.unpacked_name}: delete it and run again")
                (part / file.unpacked_name).replace(target)
            except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
                raise DownloadError(f"{archive} is damaged ({error}): delete it and run again") from error
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return target


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Return the path of the archive in the folder, downloading it unless the correct one is there.

    The bytes go to `NAME.part`, which a later call continues; only a file with the right SHA-256 gets the name.
    Several processes may call at once: the others wait for the first. A mirror that offers another size, sends more,
    or is slower than SLOW_BYTES in SLOW_SECONDS is given up for the next.

    Raises:
        DownloadError: no mirror gave the right file; one line says why, and how to get it by hand.
        DiskError: the disk refused; says where and why.
    """
    target = folder / file.name
    part = folder / f"{file.name}.part"
    with _disk(part):
        if not _fault(target, file.size_bytes, file.sha256):  # before any lock: perhaps we can only read the folder
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if _fault(target, file.size_bytes, file.sha256):  # unless the process we waited for has done it
                _complete(file, part)
                part.replace(target)
    return target


def unpack(file: RemoteFile, folder: Path) -> Path:
    """Unpack the archive in the folder, so that the result is there whole and correct or is left as it was.

    Raises:
        DownloadError: the archive is damaged or unpacks to something else, of which at most a block more than the
            published size is written.
        DiskError: the disk refused; says where and why.
    """
    archive, target = folder / file.name, folder / file.unpacked_name
    part = target.with_name(f"{target.name}.part")
    with _disk(part), _alone(target):
        if _fault(target, file.unpacked_bytes, file.unpacked_sha256):  # unless the process we waited for has done it
            try:
                with gzip.open(archive) as source, part.open("wb") as out:
                    while out.tell() <= file.unpacked_bytes and (block := source.read(BLOCK_BYTES)):
                        out.write(block)
                    _flush(out)
                if fault := _fault(part, file.unpacked_bytes, file.unpacked_sha256):
                    raise DownloadError(f"{archive} unpacks to something else, {fault}: delete it and run again")
                part.replace(target)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DownloadError(f"{archive} is damaged ({error}): delete it and run again") from error
            finally:
                part.unlink(missing_ok=True)
    return target


def _complete(file: RemoteFile, part: Path) -> None:
    """Bring the .part to the whole, correct file, from the first mirror that can."""
    if not _fault(part, file.size_bytes, file.sha256):
        return  # an earlier call was killed between the last byte and the renaming
    reasons = []
    for url in file.urls:
        try:
            _download(file, url, part)
            return
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
    wrong = "a file of that name is there, but it is another; " if part.with_suffix("").exists() else ""
    raise DownloadError(
        f"{file.name} could not be downloaded into {part.parent} ({wrong}{'; '.join(reasons)}). Try again "
        f"later, or put {file.name} (SHA-256 {file.sha256}) into that folder by hand, or set COURSE_DATA "
        "to a data folder that has it"
    )


def _download(file: RemoteFile, url: str, part: Path) -> None:
    there = part.stat().st_size if part.exists() else 0
    if 0 < there < file.size_bytes:
        with suppress(_ContinuationError):
            return _transfer(file, url, part, there)
    return _transfer(file, url, part, 0)


def _transfer(file: RemoteFile, url: str, part: Path, start: int) -> None:
    """Write what the mirror has from byte `start` on behind as many bytes of the .part, and check the whole.

    What came before the connection broke or was given up stays; a .part that is too long or wrong is removed.
    """
    unit = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with _answer(url, start, file.size_bytes) as (head, blocks):
        start = start if head.status == 206 else 0  # a server that ignores the range answers 200
        wrong = _ContinuationError if start else _MirrorError
        if head.length is not None and start + head.length != file.size_bytes:
            raise wrong(f"it offers {start + head.length} bytes, expected {file.size_bytes}")
        with (
            part.open("ab" if start else "wb") as out,
            tqdm(desc=part.stem, initial=start, total=file.size_bytes, **unit) as bar,
        ):
            for block in blocks:
                out.write(block)
                bar.update(len(block))
            _flush(out)
    size = part.stat().st_size
    if head.length is not None and size < file.size_bytes:
        raise _MirrorError(f"the connection ended after {size} of {file.size_bytes} bytes")
    if fault := _fault(part, file.size_bytes, file.sha256):
        part.unlink()
        raise wrong(f"corrupted download, {fault}")


@contextmanager
def _answer(url: str, start: int, most_bytes: int) -> Iterator[tuple[_Head, Iterator[bytes]]]:
    """Ask for the bytes from `start` on; give the head of the answer, and its bytes as they arrive.

    At most a block more than `most_bytes` is received. A thread does the asking, or nothing could bound how long it
    takes: the time limit of a socket starts again with every byte, also within `urlopen`, which reads the header. Once
    given up, the thread ends with the next bytes, with the connection, or with the process.
    """
    headers = {"User-Agent": "course-lib"} | ({"Range": f"bytes={start}-"} if start else {})
    arrived: SimpleQueue[Any] = SimpleQueue()  # the head, the blocks, and an empty block or an error
    given_up = Event()

    def ask() -> None:
        left = most_bytes
        try:
            with urlopen(Request(url, headers=headers), timeout=SILENT_SECONDS) as response:
                arrived.put(_Head(response.status, response.length))
                while left >= 0 and not given_up.is_set() and (block := response.read1(BLOCK_BYTES)):
                    arrived.put(block)
                    left -= len(block)
            arrived.put(b"")
        except BaseException as error:  # whoever waits has to hear of it
            arrived.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        yield _next(arrived, time.monotonic() + SLOW_SECONDS), _blocks(arrived)
    finally:
        given_up.set()


def _blocks(arrived: SimpleQueue) -> Iterator[bytes]:
    """Yield blocks up to the empty one, unless SLOW_BYTES of them take longer than SLOW_SECONDS."""
    deadline, owed = time.monotonic() + SLOW_SECONDS, SLOW_BYTES
    while block := _next(arrived, deadline):
        yield block
        owed -= len(block)
        if owed <= 0:
            deadline, owed = time.monotonic() + SLOW_SECONDS, SLOW_BYTES


def _next(arrived: SimpleQueue, deadline: float) -> Any:
    with _network():
        try:
            item = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise TimeoutError(f"too slow, less than {SLOW_BYTES} bytes in {SLOW_SECONDS} seconds") from None
        if isinstance(item, BaseException):
            raise item
        return item


@contextmanager
def _network() -> Iterator[None]:
    """Keep the network's errors apart from the disk's: both are OSErrors."""
    try:
        yield
    except (OSError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, HTTPError):
            error.close()  # it is the answer too, and Python 3.14 warns of one left open
            if error.code == 416:  # it has nothing from that byte on, or so it says
                raise _ContinuationError(reason) from error
        raise _MirrorError(reason) from error


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"the disk, not the network, refused {error.filename or path}: {error.strerror or error} "
            f"(errno {error.errno}). Free space there, allow reading and writing, or set COURSE_DATA to another folder"
        ) from error


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process at a time work on a file; a lock, not a name of its own, so that any can continue the .part."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"{target.name}: another process is fetching it, waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _flush(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _fault(path: Path, size_bytes: int, sha256: str) -> str:
    """Say how a file differs from the one that is published; nothing if it does not."""
    if not path.is_file():
        return "it is missing"
    if (size := path.stat().st_size) != size_bytes:
        return f"it has {size} bytes, expected {size_bytes}"
    found = sha256_of(path)
    return "" if found == sha256 else f"it has SHA-256 {found}, expected {sha256}"
