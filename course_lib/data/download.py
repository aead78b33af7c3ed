"""Fetch data files once, check them, and say plainly what went wrong: the only file that uses the network."""

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from course_lib.errors import InputError

TIMEOUT_SECONDS = 30
BLOCK_BYTES = 1 << 16


class DownloadError(InputError):
    """A file could not be had, or is not what it should be."""


class DiskError(DownloadError):
    """The disk refused (full, read-only, no permission); no mirror can mend that, so none is tried."""


class _MirrorError(Exception):
    """One mirror failed; the next may not."""


@dataclass(frozen=True)
class RemoteFile:
    """A file, the SHA-256 (hex) of the file as it is downloaded, and the addresses it may come from, best first.

    A gzip'ed file also says what it unpacks to, and the SHA-256 of that where it is known.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    unpacked_name: str = ""
    unpacked_sha256: str | None = None


def _idx(mirrors: tuple[str, ...], name: str, sha256: str, unpacked_sha256: str | None = None) -> RemoteFile:
    urls = tuple(f"{mirror}/{name}.gz" for mirror in mirrors)
    return RemoteFile(f"{name}.gz", sha256, urls, name, unpacked_sha256)


# The mirrors are torchvision's (0.29), and one more for each set, which comes last.
# The sums of the archives are those of TensorFlow Datasets (url_checksums/mnist.txt and fashion_mnist.txt); other
# projects list the same, some beside the MD5s that torchvision checks. MNIST's second sums are of the unpacked files,
# and `gzip -6` turns those into archives of the published lengths. For Fashion-MNIST no such second sums are known.
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
    _idx(_MNIST, "train-images-idx3-ubyte", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
         "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    _idx(_MNIST, "train-labels-idx1-ubyte", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
         "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    _idx(_MNIST, "t10k-images-idx3-ubyte", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
         "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    _idx(_MNIST, "t10k-labels-idx1-ubyte", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
         "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
)
FASHION_MNIST_FILES: tuple[RemoteFile, ...] = (
    _idx(_FASHION, "train-images-idx3-ubyte", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    _idx(_FASHION, "train-labels-idx1-ubyte", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    _idx(_FASHION, "t10k-images-idx3-ubyte", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    _idx(_FASHION, "t10k-labels-idx1-ubyte", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
)
# fmt: on


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Return the path of the file in the folder, downloading it unless a correct one is there.

    The bytes go to `NAME.part`, which a later call continues; only a file with the right SHA-256 gets the name.
    Several processes may call at once: the others wait for the first.

    Raises:
        DownloadError: no mirror gave the right file; one line says why, and how to get it by hand.
        DiskError: the disk refused; says where and why.
    """
    target = folder / file.name
    part = folder / f"{file.name}.part"
    with _disk(part):
        if _has_hash(target, file.sha256):  # before any lock: the folder may be one that we can only read
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not _has_hash(target, file.sha256):  # the process we waited for may have done it
                _complete(file, part)
                part.replace(target)
    return target


def unpack_gzip(archive: Path, target: Path, sha256: str | None = None) -> Path:
    """Unpack a gzip'ed file, so that `target` is there whole and correct or is left as it was.

    Raises:
        DownloadError: the archive is damaged, or what comes out has another SHA-256 than the one given.
        DiskError: the disk refused; says where and why.
    """
    part = target.with_name(f"{target.name}.part")
    with _disk(part):
        if sha256 is not None and _has_hash(target, sha256):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            try:
                with gzip.open(archive) as source, part.open("wb") as out:
                    while block := source.read(BLOCK_BYTES):
                        out.write(block)
                    _flush(out)
                if sha256 is not None and (found := _sha256(part)) != sha256:
                    raise DownloadError(
                        f"{archive} unpacks to SHA-256 {found}, expected {sha256}: delete it and run again"
                    )
                part.replace(target)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DownloadError(f"{archive} is damaged ({error}): delete it and run again") from error
            finally:
                part.unlink(missing_ok=True)
    return target


def _complete(file: RemoteFile, part: Path) -> None:
    """Bring the .part to the whole, correct file, from the first mirror that can."""
    if _has_hash(part, file.sha256):  # an earlier call was killed between the last byte and the renaming
        return
    reasons = []
    for url in file.urls:
        try:
            _download(url, part, file.sha256)
            return
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
    wrong = "a file of that name is there, but with another SHA-256; " if part.with_suffix("").exists() else ""
    raise DownloadError(
        f"{file.name} could not be downloaded into {part.parent} ({wrong}{'; '.join(reasons)}). Try again "
        f"later, or put {file.name} (SHA-256 {file.sha256}) into that folder by hand, or set COURSE_DATA "
        "to a data folder that has it"
    )


def _download(url: str, part: Path, sha256: str) -> None:
    resumed = _transfer(url, part)
    found = _sha256(part)
    if found == sha256:
        return
    part.unlink()
    if resumed:  # the fault may lie in what was there before, or in how the server continued it
        _download(url, part, sha256)
        return
    raise _MirrorError(f"corrupted download, SHA-256 {found}, expected {sha256}")


def _transfer(url: str, part: Path) -> bool:
    """Append to the .part what it lacks; say whether the server continued it rather than starting again."""
    response, start = _request(url, part.stat().st_size if part.exists() else 0)
    total = None if response.length is None else start + response.length
    unit = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with (
        response,
        part.open("ab" if start else "wb") as out,
        tqdm(desc=part.stem, initial=start, total=total, **unit) as bar,
    ):
        while block := _receive(response):
            out.write(block)
            bar.update(len(block))
        _flush(out)
        if total is not None and out.tell() < total:
            raise _MirrorError(f"the connection ended after {out.tell()} of {total} bytes")
    return start > 0


def _request(url: str, start: int) -> tuple[HTTPResponse, int]:
    """Ask for the bytes from `start` on; return the response and the byte that it does start at."""
    headers = {"User-Agent": "course-lib"} | ({"Range": f"bytes={start}-"} if start else {})
    with _network():
        try:
            response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
        except HTTPError as error:
            if error.code != 416 or not start:  # 416: the .part is as long as the file, or longer
                raise
            error.close()
            return _request(url, 0)
    return response, start if response.status == 206 else 0  # a server that ignores the range answers 200


def _receive(response: HTTPResponse) -> bytes:
    with _network():
        return response.read1(BLOCK_BYTES)  # only what has arrived, so that an interruption loses little


@contextmanager
def _network() -> Iterator[None]:
    """Keep the network's errors apart from the disk's: both are OSErrors."""
    try:
        yield
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the answer too, and Python 3.14 warns of one left open
        raise _MirrorError(" ".join(str(error).split()) or type(error).__name__) from error


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"the disk, not the network, refused {error.filename or path}: {error.strerror or error} "
            f"(errno {error.errno}). Free space there, allow writing, or set COURSE_DATA to another folder"
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


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256
