"""Does staging give exactly what went into a miniature? Sample by sample, with plain tarfile."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.manifest import read_manifest
from tests.data.miniature.archives import Miniature
from tests.data.miniature.photos import Photo, total_fate


def differences(mini: Miniature, staged: Path) -> Iterator[str]:
    """Say what is not as it should be; nothing when all is well."""
    manifest = read_manifest(staged)
    if list(manifest.class_names) != mini.class_names:
        yield "the classes are not the sorted WNIDs"
    if manifest.quarantined:
        yield f"{len(manifest.quarantined)} images were left out: {manifest.quarantined[:5]}"
    labels = {wnid: label for label, wnid in enumerate(mini.class_names)}
    for photos, entries in ((mini.train, manifest.train), (mini.val, manifest.test)):
        fate = Counter[str]()
        for entry in entries:
            fate.update(entry.box_counts._asdict())
        if +fate != +total_fate(photos):
            yield f"boxes: {dict(fate)}, not {dict(total_fate(photos))}"
        found = {
            sample["json"]["name"].removesuffix(".JPEG"): sample
            for entry in entries
            for sample in samples(staged / entry.file)
        }
        if sum(entry.num_samples for entry in entries) != len(photos):
            yield f"{sum(entry.num_samples for entry in entries)} samples, not {len(photos)}"
        yield from _sample_differences(photos, found, labels)


def _sample_differences(
    photos: Mapping[str, Photo], found: Mapping[str, dict[str, Any]], labels: Mapping[str, int]
) -> Iterator[str]:
    if found.keys() != photos.keys():
        yield f"other samples: {sorted(found.keys() ^ photos.keys())[:5]}"
    for stem in found.keys() & photos.keys():
        sample, photo = found[stem], photos[stem]
        if sample["image"] != photo.data:
            yield f"{stem}: other bytes"
        if sample["label"] != labels[photo.wnid]:
            yield f"{stem}: label {sample['label']}, not {labels[photo.wnid]}"
        expected = photo.json | {"sha256": hashlib.sha256(photo.data).hexdigest()}
        if sample["json"] != expected:
            yield f"{stem}: {sample['json']}, not {expected}"


def samples(path: Path) -> Iterator[dict[str, Any]]:
    """Group a tar's members by their key."""
    grouped: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            data = tar.extractfile(member).read()
            sample = grouped.setdefault(key, {})
            if extension == "cls":
                sample["label"] = int(data)
            elif extension == "json":
                sample["json"] = json.loads(data)
            else:
                sample["image"] = data
    yield from grouped.values()
