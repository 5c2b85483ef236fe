"""Bring tars that were staged elsewhere from a bucket: `python -m data.fetch URL STAGED`."""

import re
import shutil
import sys
from pathlib import Path
from typing import Final

from data.manifest import MANIFEST, Manifest, ManifestError, TarEntry, read_manifest
from data.publish import published, remove_partials
from data.sources.errors import SourceError
from data.sources.places import inside, is_file, normal, open_file, read_range
from data.staged_tar import DamagedTar, check_bytes, require_sound
from data.tar_scan import scan
from data.tars import WORK

REMEDY: Final = "upload it again"
MAX_MANIFEST_BYTES: Final = 1 << 30
PIECE_BYTES: Final = 1 << 20
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
    for entry in manifest.entries:
        if not _is_there(folder, entry):
            _fetch_tar(inside(url, entry.file), folder, entry)
    (work / MANIFEST).rename(folder / MANIFEST)
    shutil.rmtree(work)
    return folder


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


def _fetch_tar(place: str, folder: Path, entry: TarEntry) -> None:
    with open_file(place) as source, published(folder / entry.file) as file:
        shutil.copyfileobj(source, file, PIECE_BYTES)
        file.flush()
        if file.tell() != entry.num_bytes:
            raise DamagedTar(
                f"{place}: has {file.tell()} bytes, the manifest says {entry.num_bytes}: {REMEDY}"
            )
        require_sound(scan(file), place, entry, REMEDY)


if __name__ == "__main__":
    print(fetch_staged(sys.argv[1], Path(sys.argv[2])))
