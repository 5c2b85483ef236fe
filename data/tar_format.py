"""The tar format (POSIX ustar), as little of it as staged tars need."""

from typing import Final
from zlib import adler32

BLOCK_BYTES: Final = 512  # a header is one, data fills whole ones
RECORD_BYTES: Final = 20 * BLOCK_BYTES  # an archive fills whole ones
MAX_NAME_BYTES: Final = 100
MAX_MEMBER_BYTES: Final = 8**11 - 1

# Mode, owner and group; no time; the checksum counts itself as blanks.
_HEADER: Final = b"".join(
    (
        b"%b0000644\0",
        2 * b"0000000\0",
        b"%b00000000000\0%b",
        b"0" + bytes(100) + b"ustar\0" + b"00" + bytes(247),
    )
)
_FIXED_SUM: Final = sum(_HEADER % (b"", b"", 8 * b" "))


def byte_sum(data: bytes) -> int:
    """Up to 65520, which a header of ASCII names does not reach.

    It is what Adler-32 begins with, in a tenth of the time of `sum`.
    """
    return (adler32(data) & 0xFFFF) - 1


def member_header(name: str, num_bytes: int) -> bytes:
    """The block before a member's data; no owner and no time, so that equal members are equal.

    Raises:
        ValueError: a name over MAX_NAME_BYTES, or data over MAX_MEMBER_BYTES.
    """
    encoded = name.encode()
    if len(encoded) > MAX_NAME_BYTES or num_bytes > MAX_MEMBER_BYTES:
        raise ValueError(
            f"tar member {name!r} of {num_bytes} bytes: expected a name of at most "
            f"{MAX_NAME_BYTES} bytes and at most {MAX_MEMBER_BYTES} bytes of data"
        )
    size = b"%011o\0" % num_bytes
    checksum = b"%06o\0 " % (_FIXED_SUM + byte_sum(encoded + size))
    return _HEADER % (encoded.ljust(MAX_NAME_BYTES, b"\0"), size, checksum)


def member(name: str, data: bytes) -> bytes:
    """A whole member: header, data, padding."""
    return b"".join((member_header(name, len(data)), data, padding(len(data))))


def padding(num_bytes: int) -> bytes:
    """What fills up the last block of so much data."""
    return bytes(-num_bytes % BLOCK_BYTES)


def end_mark(num_bytes: int) -> bytes:
    """What ends an archive of so many bytes: two empty blocks, and a record filled up."""
    return bytes(2 * BLOCK_BYTES + -(num_bytes + 2 * BLOCK_BYTES) % RECORD_BYTES)


def member_bytes(num_bytes: int) -> int:
    """What a member of so much data takes in an archive."""
    return BLOCK_BYTES + num_bytes + -num_bytes % BLOCK_BYTES
