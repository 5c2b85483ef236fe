"""The manifest: what a folder of staged tars holds, and the proof that staging has finished."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from data.boxes import BoxCounts
from data.publish import published

FORMAT_VERSION: Final = 3
MANIFEST: Final = "manifest.json"
# The smallest side of images is counted below the first, between two, and from the last on.
SIDE_EDGES: Final = (32, 64, 128, 192, 256, 320, 384, 448, 512, 768, 1024)


class ManifestError(ValueError):
    """No usable manifest. The text names the file, what was found and what to do."""


@dataclass(frozen=True)
class Quarantined:
    """An image left out of the tars."""

    archive: str  # or folder
    member: str  # its name in the source
    reason: str


@dataclass(frozen=True)
class TarEntry:
    """One finished tar."""

    file: str
    num_samples: int
    num_bytes: int
    sha256: str  # of all its bytes but the images', whose own lie in their JSON
    plan_digest: str  # of everything that decided its content
    num_pixels: int  # of the images that were decoded
    rgb_sums: tuple[int, int, int]  # over these pixels: exact, so the mean needs no order
    side_counts: tuple[int, ...]  # images by their smallest side, as SIDE_EDGES says
    quarantined: tuple[Quarantined, ...]
    box_counts: BoxCounts  # how many boxes were kept, mended, dropped


@dataclass(frozen=True)
class ClassCounts:
    """Images in the tars, for each class in the order of labels."""

    train: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class DuplicateCounts:
    """Images whose bytes, by their SHA-256, are those of another image in the tars."""

    test_in_train: int  # images of the test set that are in the training set too
    again_in_train: int  # images of the training set that are in it before
    again_in_test: int


@dataclass(frozen=True)
class Manifest:
    """A staged data set."""

    name: str
    class_names: tuple[str, ...]  # sorted; a label is an index into it
    mean_rgb: tuple[float, float, float]  # over the training set's decoded pixels, 0..255
    train: tuple[TarEntry, ...]
    test: tuple[TarEntry, ...]
    class_counts: ClassCounts
    max_pixels: int  # of any image in the tars
    source: str  # where the images came from
    fingerprint: str  # the source's state when it was staged
    staging_digest: str  # of the configuration, as in the folder's name
    duplicates: DuplicateCounts | None = None  # None: staged before they were looked for

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        return tuple(bad for entry in self.entries for bad in entry.quarantined)

    @property
    def entries(self) -> tuple[TarEntry, ...]:
        return self.train + self.test


_ADAPTER: Final = TypeAdapter(Manifest)
_ENTRY_ADAPTER: Final = TypeAdapter(TarEntry)


def write_entry(path: Path, entry: TarEntry) -> None:
    """Record one finished tar while staging goes on; a record that is lost costs a tar's work."""
    with published(path, durable=False) as file:
        file.write(_ENTRY_ADAPTER.dump_json(entry))


def read_entry(path: Path) -> TarEntry | None:
    """None when there is no such record, or none that can be read: the tar is made again."""
    try:
        return _ENTRY_ADAPTER.validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Publish `folder`/manifest.json, atomically, with a digest of its own content."""
    content = _ADAPTER.dump_python(manifest, mode="json")
    whole = {"format_version": FORMAT_VERSION, "sha256": _digest(content), **content}
    with published(folder / MANIFEST) as file:
        file.write(json.dumps(whole, indent=1).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`/manifest.json.

    Raises:
        ManifestError: absent (staging has not finished), of another format version, or changed
            since it was written.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        version, digest = content.pop("format_version"), content.pop("sha256")
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such file: the data is not staged, or staging has not finished; stage it"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path}: is no manifest ({error}): delete it and stage again"
        ) from error
    if version != FORMAT_VERSION:
        raise ManifestError(
            f"{path}: has format version {version}, this program reads {FORMAT_VERSION}: "
            "delete the folder and stage again"
        )
    if digest != _digest(content):
        raise ManifestError(
            f"{path}: was changed after it was written (its sha256 does not fit): "
            "delete it and stage again"
        )
    return _validated(content, path)


def _validated(content: dict[str, Any], path: Path) -> Manifest:
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise ManifestError(f"{path}: {error}: delete it and stage again") from error


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
