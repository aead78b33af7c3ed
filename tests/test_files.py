import json
import os
import random

import pytest

from course_lib import files
from course_lib.files import DamagedError, read_sealed, write_sealed

CONTENT = {"step": 20, "loss": 0.1, "names": ["a", "é"], "none": None, "deep": {"b": {"c": 1e-9}}}


def test_what_is_sealed_comes_back(tmp_path):
    write_sealed(tmp_path / "x.json", CONTENT)
    assert read_sealed(tmp_path / "x.json") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_no_flipped_bit_is_accepted(tmp_path):
    path = tmp_path / "x.json"
    write_sealed(path, CONTENT)
    whole = path.read_bytes()
    for position in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedError, match="x.json is not what was written"):
            read_sealed(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seal": 1}', "null", "1", "[" * 10**5, "\xff", json.dumps(CONTENT)])
def test_what_was_never_sealed_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedError, match="is not what was written"):
        read_sealed(tmp_path / "x.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DamagedError, match="x.json cannot be read .No such file"):
        read_sealed(tmp_path / "x.json")


def test_infinity_is_refused_and_the_file_before_stays(tmp_path):
    path = tmp_path / "x.json"
    write_sealed(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_sealed(path, {"a": float("inf")})
    assert read_sealed(path) == {"a": 1}


def test_a_file_is_flushed_through_a_handle_that_may_write_as_windows_demands(tmp_path, monkeypatch):
    """Windows refuses to flush what was opened for reading only; this stands in for it."""
    writable, really_open = set(), os.open

    def opened(path, flags, *rest):
        handle = really_open(path, flags, *rest)
        if flags & os.O_RDWR:
            writable.add(handle)
        return handle

    def flushed(handle):
        assert handle in writable or os.path.isdir(f"/proc/self/fd/{handle}"), "EBADF on Windows"  # noqa: PTH112

    monkeypatch.setattr(files.os, "open", opened)
    monkeypatch.setattr(files.os, "fsync", flushed)
    files.write(tmp_path / "x", bytes(random.Random(0).randbytes(10)))
    assert (tmp_path / "x").stat().st_size == 10
