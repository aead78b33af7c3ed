import errno
import functools
import gzip
import hashlib
import os
import re
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from torchvision.datasets import MNIST, FashionMNIST
from tqdm import tqdm

from course_lib.data import download
from course_lib.data.download import (
    FASHION_MNIST_FILES,
    MNIST_FILES,
    DiskError,
    DownloadError,
    RemoteFile,
    fetch,
    unpack_gzip,
)
from course_lib.errors import InputError

CONTENT = bytes(range(256)) * 1000  # 256,000 bytes: several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    """Serve CONTENT as the first part of the path says, and keep what was asked."""

    def do_GET(self):
        way = self.path.split("/")[1]
        asked = self.headers["Range"]
        self.server.requests.append((way, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = b"<html>log in first</html>" if way == "wrong" else CONTENT
        if way == "missing":
            return self.send_error(404)
        if way == "slow":
            time.sleep(0.2)
        if start and way in ("good", "slow", "truncating", "elsewhere"):
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            first = start - 7 if way == "elsewhere" else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[first:]
        else:
            self.send_response(200)
        if way != "lengthless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if way in ("truncating", "resetting") else body)
        if way == "holding":
            time.sleep(0.3)
        if way == "resetting":  # once the client has read what was sent: a reset discards the rest
            time.sleep(0.1)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.requests = []
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def remote(server):
    """Make the file as mirrors of the named kinds serve it."""

    def make(*ways: str) -> RemoteFile:
        host = f"http://127.0.0.1:{server.server_port}"
        return RemoteFile("data.bin", SHA256, tuple(f"{host}/{way}/data.bin" for way in ways))

    return make


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


# ── Getting the file ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["good", "lengthless"])
def test_a_file_is_fetched_whole_into_a_new_folder(remote, tmp_path, way):
    folder = tmp_path / "new" / "folder"
    assert fetch(remote(way), folder) == folder / "data.bin"
    assert (folder / "data.bin").read_bytes() == CONTENT
    assert visible(folder) == ["data.bin"]


def test_progress_is_shown_in_bytes(remote, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(download, "tqdm", functools.partial(tqdm, disable=False))  # the tests run with TQDM_DISABLE
    fetch(remote("good"), tmp_path)
    shown = capsys.readouterr().err
    assert "data.bin: 100%" in shown
    assert "250k/250k" in shown
    assert "B/s" in shown


def test_a_good_file_makes_no_request_and_needs_no_lock(remote, server, tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT)
    assert fetch(remote("good"), tmp_path) == tmp_path / "data.bin"
    assert server.requests == []
    assert list(tmp_path.iterdir()) == [tmp_path / "data.bin"]


def test_a_bad_file_is_replaced(remote, server, tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1] + b"!")
    fetch(remote("good"), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.requests == [("good", None)]


def test_the_bytes_are_on_the_disk_before_the_file_has_its_name(remote, tmp_path, monkeypatch):
    happened = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: happened.append("fsync") or sync(number))
    monkeypatch.setattr(Path, "replace", lambda old, new: happened.append(old.name) or rename(old, new))
    fetch(remote("good"), tmp_path)
    assert happened == ["fsync", "data.bin.part"]


def test_calls_at_the_same_time_download_once(remote, server, tmp_path, capsys):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(remote("slow"), tmp_path), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert server.requests == [("slow", None)]
    assert capsys.readouterr().err.count("another process is fetching it, waiting") == 3


# ── Continuing ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_part_is_continued_from_its_last_byte(remote, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:HALF])
    fetch(remote("good"), tmp_path)
    assert server.requests == [("good", f"bytes={HALF}-")]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_complete_part_is_not_downloaded_again(remote, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    fetch(remote("good"), tmp_path)
    assert server.requests == []
    assert visible(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("way", ["ignoring", "lengthless"])
def test_a_server_that_ignores_the_range_starts_the_part_again(remote, server, tmp_path, way):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:HALF])
    fetch(remote(way), tmp_path)
    assert server.requests == [(way, f"bytes={HALF}-")]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_that_continues_at_another_byte_is_asked_for_the_whole(remote, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:HALF])
    fetch(remote("elsewhere"), tmp_path)
    assert server.requests == [("elsewhere", f"bytes={HALF}-"), ("elsewhere", None)]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [0, 10])
def test_a_part_as_long_as_the_file_but_wrong_is_started_again(remote, server, tmp_path, extra):
    (tmp_path / "data.bin.part").write_bytes(b"?" * (len(CONTENT) + extra))  # the server answers 416
    fetch(remote("good"), tmp_path)
    assert server.requests == [("good", f"bytes={len(CONTENT) + extra}-"), ("good", None)]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_part_of_another_file_is_dropped_once_its_hash_is_seen(remote, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(b"?" * HALF)
    fetch(remote("good"), tmp_path)
    assert server.requests == [("good", f"bytes={HALF}-"), ("good", None)]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("way", ["truncating", "resetting"])
def test_what_a_broken_connection_brought_is_kept_for_the_next_mirror(remote, server, tmp_path, way):
    fetch(remote(way, "good"), tmp_path)
    assert server.requests == [(way, None), ("good", f"bytes={HALF}-")]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_reset_connection_is_the_networks_fault_and_its_part_waits_for_the_next_call(remote, server, tmp_path):
    with pytest.raises(DownloadError, match=f"Errno {errno.ECONNRESET}") as raised:
        fetch(remote("resetting"), tmp_path)
    assert not isinstance(raised.value, DiskError)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:HALF]
    fetch(remote("good"), tmp_path)
    assert server.requests[-1] == ("good", f"bytes={HALF}-")


# ── What goes wrong on the network ────────────────────────────────────────────────────────────────────────────────


def test_mirrors_are_tried_in_order(remote, server, tmp_path):
    fetch(remote("missing", "wrong", "good", "ignoring"), tmp_path)
    assert [way for way, _ in server.requests] == ["missing", "wrong", "good"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_the_error_names_folder_file_reasons_and_remedy_in_one_line(remote, tmp_path):
    file = remote("missing", "wrong", "truncating")
    with pytest.raises(DownloadError) as raised:
        fetch(file, tmp_path)
    message = str(raised.value)
    found = hashlib.sha256(b"<html>log in first</html>").hexdigest()
    assert "\n" not in message
    assert f"data.bin could not be downloaded into {tmp_path}" in message
    assert f"{file.urls[0]}: HTTP Error 404: Not Found" in message
    assert f"{file.urls[1]}: corrupted download, SHA-256 {found}, expected {SHA256}" in message
    assert f"{file.urls[2]}: the connection ended after {HALF} of {len(CONTENT)} bytes" in message
    assert f"put data.bin (SHA-256 {SHA256}) into that folder" in message
    assert "COURSE_DATA" in message
    assert "another SHA-256" not in message
    assert isinstance(raised.value, InputError)
    assert not isinstance(raised.value, DiskError)


def test_a_wrong_file_put_there_by_hand_is_named_and_kept(remote, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"by hand")
    with pytest.raises(DownloadError, match="a file of that name is there, but with another SHA-256"):
        fetch(remote("missing"), tmp_path)
    assert visible(tmp_path) == ["data.bin"]


def test_a_corrupted_download_leaves_no_part(remote, tmp_path):
    with pytest.raises(DownloadError, match="corrupted download"):
        fetch(remote("wrong"), tmp_path)
    assert visible(tmp_path) == []


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = RemoteFile("data.bin", SHA256, (f"http://127.0.0.1:{silent.getsockname()[1]}/",))
        begun = time.monotonic()
        with pytest.raises(DownloadError, match="timed out"):
            fetch(file, tmp_path)
    assert time.monotonic() - begun < 2


def test_a_server_that_holds_the_line_does_not_hold_us(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)
    assert fetch(remote("holding"), tmp_path).read_bytes() == CONTENT


def test_nobody_listening_is_a_reason_too(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DownloadError, match="refused") as raised:
        fetch(RemoteFile("data.bin", SHA256, (f"http://127.0.0.1:{port}/",)), tmp_path)
    assert not isinstance(raised.value, DiskError)


# ── What goes wrong on the disk ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_disk_that_refuses_is_named_and_no_other_mirror_is_tried(remote, server, tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError) as raised:
        fetch(remote("good", "ignoring"), tmp_path)
    message = str(raised.value)
    assert "the disk, not the network" in message
    assert f"{tmp_path / 'data.bin.part'}: {os.strerror(number)} (errno {number})" in message
    assert "COURSE_DATA" in message
    assert [way for way, _ in server.requests] == ["good"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_told_from_a_broken_download(remote, server, tmp_path):
    (tmp_path / "data.bin.part").symlink_to("/dev/full")
    with pytest.raises(DiskError, match=re.escape(f"data.bin.part: No space left on device (errno {errno.ENOSPC})")):
        fetch(remote("good", "ignoring"), tmp_path)
    assert [way for way, _ in server.requests] == ["good"]


def test_a_folder_that_cannot_be_made_is_named_before_any_request(remote, server, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(DiskError, match=re.escape(f"refused {tmp_path / 'taken'}: ")):
        fetch(remote("good"), tmp_path / "taken")
    assert server.requests == []


# ── Unpacking ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return path


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_unpacking_gives_what_was_packed(archive, tmp_path, sha256):
    (tmp_path / "data").write_bytes(b"old")
    assert unpack_gzip(archive, tmp_path / "data", sha256) == tmp_path / "data"
    assert (tmp_path / "data").read_bytes() == CONTENT
    assert visible(tmp_path) == ["data", "data.gz"]


def test_what_is_unpacked_and_correct_is_left_alone(tmp_path):
    (tmp_path / "data").write_bytes(CONTENT)
    assert unpack_gzip(tmp_path / "no such archive", tmp_path / "data", SHA256) == tmp_path / "data"


def test_an_archive_of_something_else_leaves_the_target_as_it_was(archive, tmp_path):
    (tmp_path / "data").write_bytes(b"old")
    with pytest.raises(DownloadError, match=f"SHA-256 {SHA256}, expected {'0' * 64}") as raised:
        unpack_gzip(archive, tmp_path / "data", "0" * 64)
    assert str(archive) in str(raised.value)
    assert (tmp_path / "data").read_bytes() == b"old"
    assert visible(tmp_path) == ["data", "data.gz"]


@pytest.mark.parametrize("damage", ["cut", "not gzip", "bytes", "checksum"])
def test_a_damaged_archive_is_named_and_leaves_nothing(archive, tmp_path, damage):
    packed = archive.read_bytes()
    middle = len(packed) // 2
    archive.write_bytes(
        {
            "cut": packed[:middle],
            "not gzip": b"<html>",
            "bytes": packed[:20] + b"\xff" * 50 + packed[70:],
            "checksum": packed[:-8] + b"\0" * 8,
        }[damage]
    )
    with pytest.raises(DownloadError, match="is damaged") as raised:
        unpack_gzip(archive, tmp_path / "data", SHA256)
    assert str(archive) in str(raised.value)
    assert not isinstance(raised.value, DiskError)
    assert visible(tmp_path) == ["data.gz"]


def test_a_full_disk_while_unpacking_is_named_and_leaves_nothing(archive, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match=re.escape(f"{tmp_path / 'data.part'}: No space left on device")):
        unpack_gzip(archive, tmp_path / "data", SHA256)
    assert visible(tmp_path) == ["data.gz"]


def test_unpacking_waits_for_another_process_that_unpacks_the_same(archive, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / ".data.lock"):
            unpacking = pool.submit(unpack_gzip, archive, tmp_path / "data", SHA256)
            time.sleep(0.1)
            assert not (tmp_path / "data").exists()
        assert unpacking.result(timeout=5).read_bytes() == CONTENT


# ── The lists ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_lists_name_eight_different_files_with_whole_hashes():
    files = MNIST_FILES + FASHION_MNIST_FILES
    assert len({file.sha256 for file in files}) == 8
    for file in files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert len(file.urls) > 1
        assert all(url.endswith(f"/{file.name}") for url in file.urls)
        assert file.name == f"{file.unpacked_name}.gz"
    assert all(re.fullmatch("[0-9a-f]{64}", file.unpacked_sha256) for file in MNIST_FILES)


def test_names_and_a_mirror_are_those_of_torchvision():
    for source, files in ((MNIST, MNIST_FILES), (FashionMNIST, FASHION_MNIST_FILES)):
        assert [name for name, _ in source.resources] == [file.name for file in files]
        for file in files:
            assert file.urls[0] in {f"{mirror}{file.name}" for mirror in source.mirrors}
