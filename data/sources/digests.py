"""Digests that archives must have: the official ones, and those in a sums file beside them."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from data.sources.errors import SourceError
from data.sources.places import inside, is_file, read_range

SUMS_FILES: Final = {"SHA256SUMS": "sha256", "MD5SUMS": "md5"}  # as sha256sum and md5sum write them
MAX_SUMS_BYTES: Final = 1 << 20
MD5: Final[Mapping[str, str]] = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
    "ILSVRC2012_bbox_train_v2.tar.gz": "9271167e2176350e65cfe4e546f14b17",
    "ILSVRC2012_bbox_val_v3.tgz": "f4cd18b5ea29fe6bbea62ec9c20d80f0",
    "winter21_whole.tar.gz": "ab313ce03179fd803a401b02c651c0a2",
    "VOCtrainval_06-Nov-2007.tar": "c52e279531787c972589f7e41ab4ae64",
    "VOCtest_06-Nov-2007.tar": "b6e924de25625d8de591ea690078ad9f",
    "VOCtrainval_11-May-2012.tar": "6cd6e144f989b92b3379bac3b3de84fd",
    "caltech-101.zip": "3138e1922a9193bfa496528edbbc45d0",
    "101_ObjectCategories.tar.gz": "b224c7392d521a49829488ab0f1120d9",
    "256_ObjectCategories.tar": "67b4f42ca05d46448c6bb8ecd2220f6d",
}


class Digest(NamedTuple):
    """What an archive's digest should be, and who says so."""

    algorithm: str
    hexadecimal: str
    told_by: str

    def compare(self, place: str, found: str, num_bytes: int) -> None:
        if found != self.hexadecimal:
            raise SourceError(
                f"{place}: has {self.algorithm} {found} after {num_bytes} bytes, {self.told_by} "
                f"says {self.hexadecimal}: it is damaged or another edition; fetch it again, or "
                "set data.check_digests=false to use it as it is"
            )


def digest_of(folder: str, name: str, check: bool) -> Digest | None:
    """Find what the digest of a file should be; None: nobody says, or `check` is off.

    A sums file beside the archive goes before the official table: it describes this copy.
    """
    if not check:
        return None
    for sums_file, algorithm in SUMS_FILES.items():
        place = inside(folder, sums_file)
        if is_file(place) and (listed := _sums(place).get(name)):
            return Digest(algorithm, listed, sums_file)
    return Digest("md5", MD5[name], "its publisher") if name in MD5 else None


def _sums(place: str) -> dict[str, str]:
    text = read_range(place, 0, MAX_SUMS_BYTES).decode(errors="replace")
    lines = [re.fullmatch(r"([0-9a-fA-F]+) [ *](.+)", line) for line in text.splitlines() if line]
    if not all(lines):
        raise SourceError(f"{place}: has lines that are not 'DIGEST  NAME': write it with md5sum")
    return {line[2].removeprefix("./"): line[1].lower() for line in lines if line}
