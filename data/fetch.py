"""Bring tars that were staged elsewhere from a bucket, all of them or each when it is due.

python -m data.fetch URL STAGED        copies all
python -m data.fetch URL STAGED 50     leaves them there; keeps 50 GB of those used last
"""

import re
import shutil
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Final

from data.duplicates import LIST as DUPLICATES
from data.elsewhere import Elsewhere, fetch_tar, write_elsewhere
from data.manifest import MANIFEST, Manifest, ManifestError, TarEntry, read_manifest
from data.publish import published, remove_partials
from data.sources.errors import SourceError
from data.sources.places import inside, is_file, normal, read_range
from data.staged_tar import DamagedTar, check_bytes
from data.tars import WORK
from data.told import told

MAX_MANIFEST_BYTES: Final = 1 << 30
TAR_NAME: Final = re.compile(r"(train|test)-\d{6}\.tar")


def fetch_staged(url: str, staged: Path) -> Path:
    """Copy a folder of staged tars to `staged`, under its own name; whole ones there are kept.

    Every byte is compared with the manifest, which comes last: as after staging itself, it says
    that all is done. Give the same data.path as where it was staged, and no source is needed.

    Returns:
        the folder, as `flows.stage` would have made it.

    Raises:
        SourceError: nothing staged there, or it cannot be reached.
        ManifestError: the manifest is damaged, of another version, or names strange files.
        DamagedTar: a tar is not what the manifest says.
    """
    url = normal(url)
    folder, manifest = _begun(url, staged)
    work = folder / WORK
    for entry in manifest.entries:
        if not _is_there(folder, entry):
            fetch_tar(inside(url, entry.file), folder, entry)
    (work / MANIFEST).rename(folder / MANIFEST)
    shutil.rmtree(work)
    return folder


def use_in_place(url: str, staged: Path, cache_bytes: int) -> Path:
    """Make a folder of staged tars usable where it lies: readers fetch each tar when it is due.

    Tars are fetched whole, since an epoch reads all of each, compared with the manifest, and kept
    in the local folder up to `cache_bytes`; then the oldest make room.

    Returns:
        the local folder, which the flows and readers take for the staged data.

    Raises:
        SourceError: nothing staged there, it cannot be reached, or a tar is larger than the cache.
        ManifestError: the manifest is damaged, of another version, or names strange files.
    """
    url = normal(url)
    folder, manifest = _begun(url, staged)
    largest = max(entry.num_bytes for entry in manifest.entries)
    if cache_bytes < largest:
        raise SourceError(f"{url}: a tar has {largest} bytes, more than a cache of {cache_bytes}")
    write_elsewhere(folder, Elsewhere(url, cache_bytes))
    (folder / WORK / MANIFEST).rename(folder / MANIFEST)
    shutil.rmtree(folder / WORK)
    return folder


def _begun(url: str, staged: Path) -> tuple[Path, Manifest]:
    """The local folder, with the manifest in its work folder."""
    place = inside(url, MANIFEST)
    if not is_file(place):
        raise SourceError(f"{place}: does not exist: expected a folder of tars that were staged")
    folder = staged / url.rpartition("/")[2]
    work = folder / WORK
    work.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    manifest_bytes = read_range(place, 0, MAX_MANIFEST_BYTES)
    with published(work / MANIFEST) as file:
        file.write(manifest_bytes)
    manifest = read_manifest(work)
    _require_plain_names(place, manifest)
    listed = inside(url, DUPLICATES)
    if manifest.duplicates and any(astuple(manifest.duplicates)) and is_file(listed):
        with published(folder / DUPLICATES) as file:
            file.write(read_range(listed, 0, MAX_MANIFEST_BYTES))
    return folder, manifest


def _require_plain_names(place: str, manifest: Manifest) -> None:
    for entry in manifest.entries:
        if not TAR_NAME.fullmatch(entry.file):
            raise ManifestError(
                f"{place}: names the file {entry.file!r}: expected train-000000.tar"
            )


def _is_there(folder: Path, entry: TarEntry) -> bool:
    try:
        check_bytes(folder, entry)
    except DamagedTar:
        return False
    return True


def main(arguments: list[str]) -> None:
    """Fetch all, or with a third argument, the cache's GB, each tar when it is due."""
    with told():
        match arguments:
            case [url, staged]:
                print(fetch_staged(url, Path(staged)))
            case [url, staged, gigabytes] if gigabytes.isdecimal():
                print(use_in_place(url, Path(staged), int(gigabytes) * 10**9))
            case _:
                sys.exit("usage: python -m data.fetch URL STAGED [GB of cache]")


if __name__ == "__main__":
    main(sys.argv[1:])
