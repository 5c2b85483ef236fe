"""Files written past the cache: the bytes that were appended, wherever that is allowed."""

import errno
import fcntl
import os
import random

import pytest

import data.direct_file
from data.direct_file import BUFFER_BYTES, DISK_BLOCK_BYTES, DirectFile


def written(path, pieces):
    with path.open("xb+") as file:
        sink = DirectFile(file)
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
    with (tmp_path / "file").open("xb+") as file:
        sink = DirectFile(file)
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


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(descriptor, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data.direct_file.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "file", [bytes(BUFFER_BYTES)])
