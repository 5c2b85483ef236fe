"""Our tar blocks are those that Python's tarfile writes and reads."""

import io
import tarfile

import pytest

from data.tar_format import (
    MAX_MEMBER_BYTES,
    RECORD_BYTES,
    end_mark,
    member_bytes,
    member_header,
    padding,
)


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 512, 513, 123_456_789, MAX_MEMBER_BYTES])
@pytest.mark.parametrize("name", ["a.jpg", "x" * 100, "ümlaut.cls"])
def test_a_header_is_the_one_tarfile_makes(name, num_bytes):
    info = tarfile.TarInfo(name)
    info.size, info.mode = num_bytes, 0o644
    theirs = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    assert member_header(name, num_bytes) == theirs


@pytest.mark.parametrize(("name", "num_bytes"), [("x" * 101, 1), ("x", MAX_MEMBER_BYTES + 1)])
def test_what_a_plain_header_cannot_hold_is_refused(name, num_bytes):
    with pytest.raises(ValueError, match="expected a name of at most 100 bytes"):
        member_header(name, num_bytes)


@pytest.mark.parametrize("sizes", [[], [0], [1, 512, 513], [8192], [7168, 9], [100] * 57])
def test_a_whole_archive_is_tarfiles_to_the_byte(sizes):
    ours = b""
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, size in enumerate(sizes):
                info = tarfile.TarInfo(f"{number}.bin")
                info.size = size
                data = bytes([number % 256]) * size
                tar.addfile(info, io.BytesIO(data))
                member = member_header(info.name, size) + data + padding(size)
                assert len(member) == member_bytes(size)
                ours += member
        ours += end_mark(len(ours))
        assert ours == file.getvalue()
    assert len(ours) % RECORD_BYTES == 0
