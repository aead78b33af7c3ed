import errno
import functools
import gzip
import hashlib
import io
import os
import re
import socket
import struct
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from torchvision.datasets import MNIST, FashionMNIST
from tqdm import tqdm

from course_lib.data import download
from course_lib.data.download import (
    FASHION_MNIST_FILES,
    FLOWER_PHOTOS,
    MNIST_FILES,
    DiskError,
    DownloadError,
    RemoteFile,
    fetch,
    obtain,
    obtain_folder,
    unpack,
)
from course_lib.errors import InputError
from course_lib.files import DamagedError

CONTENT = bytes(range(256)) * 1000  # 256,000 bytes: several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
PACKED = gzip.compress(CONTENT)
LOGIN = b"<html>log in first</html>"


def published(content: bytes, *urls: str, packed: bytes = b"") -> RemoteFile:
    """Describe data.bin, of this content, or data.gz, which unpacks to the content."""
    archive = packed or content
    return RemoteFile(
        name="data.gz" if packed else "data.bin",
        size_bytes=len(archive),
        sha256=hashlib.sha256(archive).hexdigest(),
        urls=urls,
        unpacked_name="data",
        unpacked_bytes=len(content),
        unpacked_sha256=hashlib.sha256(content).hexdigest(),
    )


class Handler(BaseHTTPRequestHandler):
    """Serve CONTENT as the first part of the path says, and keep what was asked."""

    def do_GET(self):
        way = self.path.split("/")[1]
        asked = self.headers["Range"]
        self.server.requests.append((way, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = {"wrong": LOGIN, "wrong-lengthless": LOGIN, "garbled": CONTENT[::-1], "packed": PACKED}.get(way, CONTENT)
        if way == "missing":
            return self.send_error(404)
        if way == "rangeless" and asked:
            return self.send_error(416)
        if way == "dripping-head":
            return self.drip(b"HTTP/1.0 200 OK\r\nX-Padding: ")
        if way == "dripping-chunk":
            return self.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;padding=")
        if way == "slow":
            time.sleep(0.2)
        if start and way in ("good", "slow", "truncating", "elsewhere"):
            self.send_response(206)
            first = start - 7 if way == "elsewhere" else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[first:]
        else:
            self.send_response(200)
        if way not in ("lengthless", "wrong-lengthless", "endless"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if way == "dripping":
            return self.drip(body[:HALF])
        if way == "endless":
            with suppress(OSError):
                for _ in range(200):
                    self.wfile.write(body)
            return None
        if way == "steady":
            for fifth in range(5):
                self.wfile.write(body[fifth * len(body) // 5 : (fifth + 1) * len(body) // 5])
                time.sleep(0.1)
            return None
        self.wfile.write(body[: len(body) // 2] if way in ("truncating", "resetting") else body)
        if way == "holding":
            time.sleep(0.3)
        if way == "resetting":  # once the client has read what was sent: a reset discards the rest
            time.sleep(0.1)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def drip(self, beginning: bytes):
        """Send the beginning, then a byte at a time for two seconds."""
        try:
            self.wfile.write(beginning)
            for _ in range(100):
                time.sleep(0.02)
                self.wfile.write(b"?")
        except OSError:
            self.server.left_alone.set()

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.requests, serving.left_alone = [], threading.Event()
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
        return published(CONTENT, *(f"{host}/{way}/data.bin" for way in ways))

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
    (tmp_path / "data.bin.part").write_bytes(b"?" * (len(CONTENT) + extra))
    fetch(remote("good"), tmp_path)
    assert server.requests == [("good", None)]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_that_refuses_to_continue_is_asked_for_the_whole(remote, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:HALF])
    fetch(remote("rangeless"), tmp_path)
    assert server.requests == [("rangeless", f"bytes={HALF}-"), ("rangeless", None)]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_part_outlives_a_mirror_that_offers_something_else(remote, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:HALF])
    fetch(remote("wrong", "good"), tmp_path)
    assert server.requests == [("wrong", f"bytes={HALF}-"), ("good", f"bytes={HALF}-")]
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
    file = remote("missing", "wrong", "garbled", "wrong-lengthless", "truncating")
    with pytest.raises(DownloadError) as raised:
        fetch(file, tmp_path)
    message = str(raised.value)
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert "\n" not in message
    assert f"data.bin could not be downloaded into {tmp_path}" in message
    assert f"{file.urls[0]}: HTTP Error 404: Not Found" in message
    assert f"{file.urls[1]}: it offers {len(LOGIN)} bytes, expected {len(CONTENT)}" in message
    assert f"{file.urls[2]}: corrupted download, it has SHA-256 {found}, expected {SHA256}" in message
    assert f"{file.urls[3]}: corrupted download, it has {len(LOGIN)} bytes, expected {len(CONTENT)}" in message
    assert f"{file.urls[4]}: the connection ended after {HALF} of {len(CONTENT)} bytes" in message
    assert f"put data.bin (SHA-256 {SHA256}) into that folder" in message
    assert "COURSE_DATA" in message
    assert "a file of that name" not in message
    assert isinstance(raised.value, InputError)
    assert not isinstance(raised.value, DiskError)


def test_a_wrong_file_put_there_by_hand_is_named_and_kept(remote, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"by hand")
    with pytest.raises(DownloadError, match="a file of that name is there, but it is another"):
        fetch(remote("missing"), tmp_path)
    assert visible(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("way", ["garbled", "wrong-lengthless"])
def test_a_corrupted_download_leaves_no_part(remote, tmp_path, way):
    with pytest.raises(DownloadError, match="corrupted download"):
        fetch(remote(way), tmp_path)
    assert visible(tmp_path) == []


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SILENT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = published(CONTENT, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        begun = time.monotonic()
        with pytest.raises(DownloadError, match="timed out"):
            fetch(file, tmp_path)
    assert time.monotonic() - begun < 2


def test_a_server_that_holds_the_line_does_not_hold_us(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SILENT_SECONDS", 0.1)
    assert fetch(remote("holding"), tmp_path).read_bytes() == CONTENT


def test_nobody_listening_is_a_reason_too(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DownloadError, match="refused") as raised:
        fetch(published(CONTENT, f"http://127.0.0.1:{port}/"), tmp_path)
    assert not isinstance(raised.value, DiskError)


@pytest.mark.parametrize("start", [0, HALF])
def test_no_more_than_the_published_size_is_taken_from_a_mirror(remote, server, tmp_path, start):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:start])
    with pytest.raises(DownloadError, match="corrupted download, it has .* bytes") as raised:
        fetch(remote("endless"), tmp_path)
    taken = int(re.search(r"it has (\d+) bytes", str(raised.value))[1])
    assert len(CONTENT) < taken <= len(CONTENT) + download.BLOCK_BYTES
    assert visible(tmp_path) == []
    assert fetch(remote("endless", "good"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("way, kept", [("dripping-head", 0), ("dripping-chunk", 0), ("dripping", HALF)])
def test_a_mirror_that_drips_is_given_up_and_what_it_brought_is_kept(remote, server, tmp_path, monkeypatch, way, kept):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.2)
    begun = time.monotonic()
    with pytest.raises(DownloadError, match=r"too slow, less than 65536 bytes in 0\.2 seconds"):
        fetch(remote(way), tmp_path)
    assert 0.2 <= time.monotonic() - begun < 1
    part = tmp_path / "data.bin.part"
    assert kept <= (part.stat().st_size if part.exists() else 0) < kept + 100
    fetch(remote("good"), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert not kept or server.requests[1][1].startswith("bytes=")


def test_the_next_mirror_is_asked_when_one_drips(remote, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.2)
    fetch(remote("dripping-head", "good"), tmp_path)
    assert server.requests == [("dripping-head", None), ("good", None)]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_mirror_that_is_given_up_is_hung_up_on(remote, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.1)
    fetch(remote("dripping", "good"), tmp_path)
    assert server.left_alone.wait(1)


def test_a_mirror_that_is_steady_may_take_longer(remote, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(download, "SLOW_BYTES", 40_000)  # it sends 51,200 in 0.1 seconds, and takes 0.5 for all
    assert fetch(remote("steady"), tmp_path).read_bytes() == CONTENT


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


FILE = published(CONTENT, packed=PACKED)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "data.gz"
    path.write_bytes(PACKED)
    return path


def test_unpacking_gives_what_was_packed(archive, tmp_path):
    (tmp_path / "data").write_bytes(b"old")
    assert unpack(FILE, tmp_path) == tmp_path / "data"
    assert (tmp_path / "data").read_bytes() == CONTENT
    assert visible(tmp_path) == ["data", "data.gz"]


def test_what_is_unpacked_and_correct_is_left_alone(tmp_path):
    (tmp_path / "data").write_bytes(CONTENT)
    assert unpack(FILE, tmp_path) == tmp_path / "data"  # there is no archive
    assert visible(tmp_path) == ["data"]


def test_an_archive_of_something_else_leaves_the_target_as_it_was(tmp_path):
    (tmp_path / "data").write_bytes(b"old")
    archive = tmp_path / "data.gz"
    archive.write_bytes(gzip.compress(CONTENT[::-1]))
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()
    with pytest.raises(DownloadError, match=f"SHA-256 {found}, expected {SHA256}") as raised:
        unpack(FILE, tmp_path)
    assert str(archive) in str(raised.value)
    assert (tmp_path / "data").read_bytes() == b"old"
    assert visible(tmp_path) == ["data", "data.gz"]


def test_an_archive_that_unpacks_to_too_much_is_stopped(archive, tmp_path, monkeypatch):
    archive.write_bytes(gzip.compress(bytes(20 * len(CONTENT))))
    written = []
    monkeypatch.setattr(os, "fsync", lambda number: written.append(os.fstat(number).st_size))
    with pytest.raises(DownloadError, match=f"unpacks to something else, it has .* bytes, expected {len(CONTENT)}"):
        unpack(FILE, tmp_path)
    assert len(CONTENT) < written[0] <= len(CONTENT) + download.BLOCK_BYTES
    assert visible(tmp_path) == ["data.gz"]


@pytest.mark.parametrize("damage", ["cut", "not gzip", "bytes", "checksum"])
def test_a_damaged_archive_is_named_and_leaves_nothing(archive, tmp_path, damage):
    middle = len(PACKED) // 2
    archive.write_bytes(
        {
            "cut": PACKED[:middle],
            "not gzip": b"<html>",
            "bytes": PACKED[:20] + b"\xff" * 50 + PACKED[70:],
            "checksum": PACKED[:-8] + b"\0" * 8,
        }[damage]
    )
    with pytest.raises(DownloadError, match="is damaged") as raised:
        unpack(FILE, tmp_path)
    assert str(archive) in str(raised.value)
    assert not isinstance(raised.value, DiskError)
    assert visible(tmp_path) == ["data.gz"]


def test_a_full_disk_while_unpacking_is_named_and_leaves_nothing(archive, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match=re.escape(f"{tmp_path / 'data.part'}: No space left on device")):
        unpack(FILE, tmp_path)
    assert visible(tmp_path) == ["data.gz"]


def test_unpacking_waits_for_another_process_that_unpacks_the_same(archive, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / ".data.lock"):
            unpacking = pool.submit(unpack, FILE, tmp_path)
            time.sleep(0.1)
            assert not (tmp_path / "data").exists()
        assert unpacking.result(timeout=5).read_bytes() == CONTENT


# ── Obtaining ─────────────────────────────────────────────────────────────────────────────────────────────────────

DAMAGED = {
    "flipped": CONTENT[:-1] + b"!",
    "cut": CONTENT[:HALF],
    "long": CONTENT + b"!",
    "other": LOGIN,
    "empty": b"",
}


@pytest.fixture
def mirrored(server):
    return published(CONTENT, f"http://127.0.0.1:{server.server_port}/packed/data.gz", packed=PACKED)


def test_what_is_missing_is_downloaded_and_unpacked(mirrored, server, tmp_path):
    assert obtain(mirrored, tmp_path / "new").read_bytes() == CONTENT
    assert server.requests == [("packed", None)]
    assert visible(tmp_path / "new") == ["data", "data.gz"]


def test_what_is_there_and_correct_is_neither_asked_for_nor_written(mirrored, server, tmp_path):
    (tmp_path / "data").write_bytes(CONTENT)
    assert obtain(mirrored, tmp_path) == tmp_path / "data"
    assert server.requests == [] and list(tmp_path.iterdir()) == [tmp_path / "data"]


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_damaged_is_unpacked_again_where_the_archive_is_there(
    mirrored, server, archive, tmp_path, capsys, damage
):
    (tmp_path / "data").write_bytes(DAMAGED[damage])
    assert obtain(mirrored, tmp_path).read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert f"{tmp_path / 'data'} is not the published file: it has" in said and "Unpacking it again" in said
    assert server.requests == []


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("beside", [None, PACKED[:-1] + b"!"])
def test_what_is_damaged_without_its_archive_is_named_and_had_again_once_deleted(
    mirrored, server, tmp_path, damage, beside
):
    path = tmp_path / "data"
    path.write_bytes(DAMAGED[damage])
    if beside:
        (tmp_path / "data.gz").write_bytes(beside)
    with pytest.raises(DamagedError) as raised:
        obtain(mirrored, tmp_path)
    message = str(raised.value)
    assert "\n" not in message and f"{path} is not the published file: it has" in message
    assert "Delete it and run again" in message
    assert path.read_bytes() == DAMAGED[damage] and server.requests == []
    path.unlink()
    assert obtain(mirrored, tmp_path).read_bytes() == CONTENT


# ── A folder ──────────────────────────────────────────────────────────────────────────────────────────────────────


def packed_folder(*names):
    """Pack files of these names."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return memory.getvalue()


def of_folder(folder, content):
    """Lay an archive into the folder, and describe it as published."""
    (folder / "photos.tgz").write_bytes(content)
    return RemoteFile("photos.tgz", len(content), hashlib.sha256(content).hexdigest(), (), "photos")


def test_an_archive_of_a_folder_is_unpacked_once_and_whole(tmp_path):
    file = of_folder(tmp_path, packed_folder("photos/a/1.jpg", "photos/LICENSE.txt"))
    assert obtain_folder(file, tmp_path) == tmp_path / "photos"
    assert (tmp_path / "photos" / "a" / "1.jpg").read_text() == "photos/a/1.jpg"
    (tmp_path / "photos" / "a" / "1.jpg").write_text("made smaller")
    (tmp_path / "photos.tgz").unlink()
    assert (obtain_folder(file, tmp_path) / "a" / "1.jpg").read_text() == "made smaller"
    assert not (tmp_path / "photos.part").exists()


@pytest.mark.parametrize("name", ["../outside.txt", "photos/../../outside.txt"])
def test_an_archive_writes_nothing_outside_its_folder(tmp_path, name):
    (tmp_path / "data").mkdir()
    file = of_folder(tmp_path / "data", packed_folder("photos/1.jpg", name))
    with pytest.raises(DownloadError, match="delete it and run again"):
        obtain_folder(file, tmp_path / "data")
    assert not list(tmp_path.rglob("outside.txt")) and not list(tmp_path.rglob("photos*.part"))


@pytest.mark.parametrize(
    "content",
    [packed_folder("other/1.jpg"), gzip.compress(b"no tar"), PACKED[:-9], b"no gzip"],
    ids=["another folder", "no tar", "cut short", "no gzip"],  # a packed file's bytes hold the time it was packed
)
def test_an_archive_without_the_folder_is_named_and_leaves_nothing(tmp_path, content):
    with pytest.raises(DownloadError, match=r"photos.tgz .*delete it and run again"):
        obtain_folder(of_folder(tmp_path, content), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"photos.tgz", ".photos.lock"}


def test_the_flowers_are_published_by_two_hosts_under_one_name():
    assert len(FLOWER_PHOTOS.urls) == 2 and all(url.endswith("/flower_photos.tgz") for url in FLOWER_PHOTOS.urls)
    assert re.fullmatch("[0-9a-f]{64}", FLOWER_PHOTOS.sha256) and FLOWER_PHOTOS.size_bytes == 228_813_984


# ── The lists ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_lists_name_eight_different_files_with_whole_hashes():
    files = MNIST_FILES + FASHION_MNIST_FILES
    sums = [found for file in files for found in (file.sha256, file.unpacked_sha256)]
    assert len(set(sums)) == 16 and all(re.fullmatch("[0-9a-f]{64}", found) for found in sums)
    for file in files:
        assert len(file.urls) > 1
        assert all(url.endswith(f"/{file.name}") for url in file.urls)
        assert file.name == f"{file.unpacked_name}.gz"


@pytest.mark.parametrize("files", [MNIST_FILES, FASHION_MNIST_FILES])
def test_the_sizes_are_those_of_as_many_pictures_and_labels(files):
    for file in files:
        count = 60_000 if "train" in file.name else 10_000
        assert file.unpacked_bytes == (16 + 28 * 28 * count if "images" in file.name else 8 + count)
        assert file.unpacked_bytes / 10 < file.size_bytes < file.unpacked_bytes


def test_names_and_a_mirror_are_those_of_torchvision():
    for source, files in ((MNIST, MNIST_FILES), (FashionMNIST, FASHION_MNIST_FILES)):
        assert [name for name, _ in source.resources] == [file.name for file in files]
        for file in files:
            assert file.urls[0] in {f"{mirror}{file.name}" for mirror in source.mirrors}
