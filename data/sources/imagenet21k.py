"""ImageNet-21k: fall11_whole.tar or winter21_whole.tar.gz, one tar of a tar for each class."""

import hashlib
import re
from pathlib import Path
from typing import Final

from data.sources.archive import require_archive
from data.sources.digests import digest_of
from data.sources.errors import SourceError
from data.sources.source import ByteRange, ListedSource, SourceSample, Spool
from data.sources.strict_tar import is_compressed, tar_members
from data.sources.table import TableWriter

IMAGE: Final = re.compile(r"(?:[^/]+/)?(n\d{8})\.tar/(\1_\d+)\.JPEG")
TEST_ONE_IN: Final = 25


def imagenet21k_source(place: str, spool_path: Path, check_digests: bool) -> ListedSource:
    """Stream the archive once; its classes are what it holds, in the order of their WNIDs.

    Nobody has divided it: an image belongs to the test set when the SHA-256 of its name says so,
    one in 25. Of a plain tar the images are read later from the archive itself; those of a tar.gz
    go to the spool, which needs as much room as they take.

    Raises:
        SourceError: damaged, another digest, members that are not WNID.tar/WNID_NUMBER.JPEG.
    """
    require_archive(place, "fall11_whole.tar or winter21_whole.tar.gz")
    folder, _, file_name = place.rpartition("/")
    digest = digest_of(folder, file_name, check_digests)
    numbers: dict[str, int] = {}  # of the classes, as they come
    with (
        Spool(spool_path) as spool,
        TableWriter(spool.folder) as train,
        TableWriter(spool.folder) as test,
    ):
        compressed = is_compressed(place)
        for member in tar_members(place, of_tars=True, digest=digest):
            if member.is_folder:
                continue
            match = IMAGE.fullmatch(member.name)
            if not match:
                raise SourceError(
                    f"{place}: member {member.name!r} at offset {member.offset}: expected "
                    "WNID.tar/WNID_NUMBER.JPEG"
                )
            location = (
                spool.append(member.read())
                if compressed
                else ByteRange(place, member.offset, member.num_bytes)
            )
            name, number = f"{match[2]}.JPEG", numbers.setdefault(match[1], len(numbers))
            is_test = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % TEST_ONE_IN == 0
            (test if is_test else train).append(SourceSample(name, number, location, place))
        tables = train.table(), test.table()
    class_names = tuple(sorted(numbers))
    if len(class_names) < 2:
        raise SourceError(f"{place}: {len(class_names)} classes: expected thousands")
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    ranks = [labels[wnid] for wnid in numbers]
    return ListedSource(class_names, *(table.relabelled(ranks) for table in tables))
