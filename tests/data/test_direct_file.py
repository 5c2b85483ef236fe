"""Files written past the cache: the bytes that were appended, wherever that is allowed."""

import errno
import fcntl
import mmap
import os
import random
import threading

import pytest

import data.direct_file
from data.direct_file import BUFFER_BYTES, DISK_BLOCK_BYTES, DirectFile


def written(path, pieces):
    with path.open("xb+") as file, DirectFile(file) as sink:
        for piece in pieces:
            sink.room(len(piece))[:] = piece
            sink.append(len(piece))
        assert sink.num_bytes == sum(len(piece) for piece in pieces)
        sink.finish()
    return path.read_bytes()


def pieces_of(seed):
    """Of any length: none, within a block, over several buffers."""
    rng = random.Random(seed)
    most = (1, 600, 2 * DISK_BLOCK_BYTES, BUFFER_BYTES // 3, 3 * BUFFER_BYTES)
    return [rng.randbytes(rng.randint(0, rng.choice(most))) for _ in range(20)]


@pytest.mark.parametrize("seed", range(10))
def test_a_file_has_the_bytes_that_were_appended(tmp_path, seed):
    pieces = pieces_of(seed)
    assert written(tmp_path / "file", pieces) == b"".join(pieces)


def test_what_was_put_into_the_room_and_not_appended_is_forgotten(tmp_path):
    with (tmp_path / "file").open("xb+") as file, DirectFile(file) as sink:
        sink.room(10)[:] = b"ten bytes."
        sink.room(4)[:] = b"four"
        sink.append(4)
        sink.finish()
    assert (tmp_path / "file").read_bytes() == b"four"


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(
        data.direct_file.os, "write", lambda file, chunk: write(file, chunk[:DISK_BLOCK_BYTES])
    )
    pieces = pieces_of(0)
    assert written(tmp_path / "file", pieces) == b"".join(pieces)


def test_a_file_system_that_refuses_the_flag_gets_ordinary_writes(tmp_path, monkeypatch):
    control = fcntl.fcntl

    def refuses(descriptor, command, argument=0):
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return control(descriptor, command, argument)

    monkeypatch.setattr(data.direct_file.fcntl, "fcntl", refuses)
    pieces = pieces_of(1)
    assert written(tmp_path / "file", pieces) == b"".join(pieces)


def test_a_file_system_that_refuses_direct_writes_gets_ordinary_ones(tmp_path, monkeypatch):
    write = os.write

    def refuses(descriptor, chunk):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(descriptor, chunk)

    monkeypatch.setattr(data.direct_file.os, "write", refuses)
    pieces = pieces_of(2)
    assert written(tmp_path / "file", pieces) == b"".join(pieces)


def test_one_buffer_is_filled_while_the_other_is_written(tmp_path, monkeypatch):
    write, filled = os.write, threading.Event()

    def waits(descriptor, chunk):
        assert filled.wait(timeout=30)
        return write(descriptor, chunk)

    monkeypatch.setattr(data.direct_file.os, "write", waits)
    with (tmp_path / "file").open("xb+") as file, DirectFile(file) as sink:
        for byte in (b"a", b"b"):
            sink.room(BUFFER_BYTES)[:] = byte * BUFFER_BYTES
            sink.append(BUFFER_BYTES)
        filled.set()
        sink.finish()
    assert (tmp_path / "file").read_bytes() == b"a" * BUFFER_BYTES + b"b" * BUFFER_BYTES


def test_nothing_is_written_once_the_block_has_ended(tmp_path, monkeypatch):
    begun, left, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(descriptor, chunk):
        begun.set()
        left.wait(timeout=0.2)  # does not come
        ended.set()
        return len(chunk)

    monkeypatch.setattr(data.direct_file.os, "write", slow)

    def stop_midway(file):
        with DirectFile(file) as sink:
            sink.room(BUFFER_BYTES)
            sink.append(BUFFER_BYTES)
            sink.room(1)
            assert begun.wait(timeout=30)
            raise ZeroDivisionError

    with (tmp_path / "file").open("xb+") as file:
        with pytest.raises(ZeroDivisionError):
            stop_midway(file)
        assert ended.is_set()


def test_a_disk_that_is_full_before_the_end_is_told_before_the_end(tmp_path, monkeypatch):
    def full(descriptor, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data.direct_file.os, "write", full)
    with (tmp_path / "file").open("xb+") as file, DirectFile(file) as sink:
        for _ in range(2):
            sink.room(BUFFER_BYTES)
            sink.append(BUFFER_BYTES)
        with pytest.raises(OSError, match="No space left"):
            sink.room(1)


def test_a_kernel_without_large_pages_gives_ordinary_ones(tmp_path, monkeypatch):
    asked = []

    class Plain(mmap.mmap):
        def madvise(self, option):
            asked.append(option)
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(data.direct_file.mmap, "mmap", Plain)
    pieces = pieces_of(3)
    assert written(tmp_path / "file", pieces) == b"".join(pieces)
    assert asked


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(descriptor, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data.direct_file.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "file", [bytes(BUFFER_BYTES)])
