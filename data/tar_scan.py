"""Reading a staged tar from start to end: its index and its digests, in one pass."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Final

from data.manifest import TarEntry
from data.tar_format import BLOCK_BYTES, member_bytes

PIECE_BYTES: Final = 1 << 20
SHOWN: Final = 5  # samples named in a message
REMEDY: Final = "python -m flows.stage --repair writes this tar again, and only it"
LABEL, ABOUT = "cls", "json"  # extensions of what lies beside an image


class DamagedTar(ValueError):
    """A staged tar is not what the manifest says. The text names the tar and what to do."""


@dataclass
class Scan:
    """What a tar holds, sample by sample, as far as it could be read."""

    spans: list[tuple[int, int]] = field(default_factory=list)  # images' offsets and sizes, bytes
    labels: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height
    is_jpeg: list[bool] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)  # SHA-256 of images, as their JSON says
    samples_hit: list[str] = field(default_factory=list)  # keys; the image is not its JSON's
    sha256: str = ""  # of all bytes but the images'
    is_readable: bool = True  # to the end


def scan(file: IO[bytes]) -> Scan:
    """Read all of a tar that `write_tar` made.

    The tar's digest covers all bytes but the images', whose own digests lie in the JSON that it
    covers: so both together cover every bit, and each byte is hashed once. Damage changes one of
    them, or makes the tar unreadable from somewhere on.
    """
    found = Scan()
    beside_images = hashlib.sha256()
    image = b""
    try:
        for key, extension, offset, num_bytes in _members(file, beside_images.update):
            data = os.pread(file.fileno(), num_bytes, offset)
            if extension not in (LABEL, ABOUT):
                image = data
                found.spans.append((offset, num_bytes))
                found.is_jpeg.append(extension == "jpg")
                continue
            beside_images.update(data)
            if extension == LABEL:
                found.labels.append(int(data))
                continue
            about = json.loads(data)
            found.sizes.append((about["width"], about["height"]))
            found.digests.append(about["sha256"])
            if about["sha256"] != hashlib.sha256(image).hexdigest():
                found.samples_hit.append(key)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found.is_readable = False
    found.sha256 = beside_images.hexdigest()
    return found


def _members(
    file: IO[bytes], watch: Callable[[bytes], object]
) -> Iterator[tuple[str, str, int, int]]:
    """Key, extension, data offset and size of each member; `watch` sees all that is between data.

    Names are short and sizes octal; ten times as fast as tarfile, which knows all variants.

    Raises:
        ValueError: no header where one has to be.
    """
    descriptor, offset = file.fileno(), 0
    end = os.fstat(descriptor).st_size
    while any(header := os.pread(descriptor, BLOCK_BYTES, offset)):
        watch(header)
        num_bytes = int(header[124:135], 8)
        after = offset + member_bytes(num_bytes)
        if num_bytes < 0 or after > end:
            raise ValueError(f"a member of {num_bytes} bytes at offset {offset} of {end}")
        key, _, extension = header[:100].rstrip(b"\0").decode().rpartition(".")
        start = offset + BLOCK_BYTES
        yield key, extension, start, num_bytes
        watch(os.pread(descriptor, after - start - num_bytes, start + num_bytes))
        offset = after
    while rest := os.pread(descriptor, PIECE_BYTES, offset):
        watch(rest)
        offset += len(rest)


def require_sound(found: Scan, place: str, entry: TarEntry, remedy: str = REMEDY) -> None:
    """Compare what was read of a tar that lies at `place` with its entry.

    Raises:
        DamagedTar: any difference.
    """
    if found.sha256 == entry.sha256 and found.is_readable and not found.samples_hit:
        return
    what = (
        f"has SHA-256 {found.sha256[:16]}... beside its images, the manifest says "
        f"{entry.sha256[:16]}..."
        if found.sha256 != entry.sha256
        else "holds images that are not those of their SHA-256"
    )
    raise DamagedTar(f"{place}: {what}: {remedy}{_samples_hit(found)}")


def _samples_hit(found: Scan) -> str:
    keys = found.samples_hit
    hit = f"; samples hit: {', '.join(keys[:SHOWN])}" if keys else ""
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    ended = "" if found.is_readable else "; its structure is unreadable from some member on"
    return hit + more + ended
