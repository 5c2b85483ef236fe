"""The SHA-256 of every staged image, beside the records of finished tars until staging ends."""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from data.manifest import TarEntry
from data.plan import TarPlan
from data.publish import published
from data.tar_scan import require_sound, scan

DIGEST_BYTES: Final = hashlib.sha256().digest_size
LEFT_OUT: Final = bytes(DIGEST_BYTES)  # in place of that of an image that is in no tar

Digests = npt.NDArray[np.bytes_]  # (N,) of S32


def write_digests(plan: TarPlan, entry: TarEntry, digests: bytes | bytearray) -> None:
    """Leave the digests of a tar's planned images, in their order, before the tar is recorded."""
    with published(_path(plan), durable=False) as file:
        file.write(bytes.fromhex(entry.sha256) + digests)


def read_digests(plan: TarPlan, entry: TarEntry) -> Digests:
    """The digests of a tar's planned images; LEFT_OUT for those that are not in it.

    A tar that this staging has found finished, with a manifest, has none beside it: it is read.

    Raises:
        DamagedTar: it had to be read, and is not what its entry says.
    """
    try:
        content = _path(plan).read_bytes()
    except FileNotFoundError:
        content = b""
    # What is hashed of a tar has the digests in it; a loss of power may have torn them here.
    begins, digests = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    is_own = begins == bytes.fromhex(entry.sha256)
    if not is_own or len(digests) != plan.num_samples * DIGEST_BYTES:
        digests = _of_tar(plan, entry)
    return np.frombuffer(digests, f"S{DIGEST_BYTES}")


def _path(plan: TarPlan) -> Path:
    return plan.listing / f"{plan.path.name}.digests"


def _of_tar(plan: TarPlan, entry: TarEntry) -> bytes:
    with plan.path.open("rb") as file:
        found = scan(file)
    require_sound(found, str(plan.path), entry)
    left_out = {image.member for image in entry.quarantined}
    in_tar = map(bytes.fromhex, found.digests)
    return b"".join(
        LEFT_OUT if sample.name in left_out else next(in_tar) for sample in plan.samples
    )
