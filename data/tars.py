"""Writing one WebDataset tar: atomic, and the same bytes for the same plan."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
from webdataset.writer import TarWriter

from data.boxes import Annotation, BoxCounts, fit_boxes
from data.decode import RgbImage, UndecodableImage, decode_rgb, file_extension, orientation
from data.manifest import Quarantined, TarEntry, write_entry
from data.plan import PlannedSample, TarPlan
from data.publish import published

WORK: Final = ".staging"  # sub-folder of what staging needs until it ends


def write_tar(plan: TarPlan) -> TarEntry:
    """Make the tar of one plan and record it as finished.

    A sample has three members: the image's original bytes, `.cls` (the label as text) and `.json`
    (class_name; name of the original; width and height as decoded, pixels; of annotated images also
    boxes, present, difficult and blacklisted, where known). Images that cannot be decoded are left
    out and listed in the entry.

    Same plan, same bytes. The tar appears under its name only when complete and on disk, and its
    record after it: whoever is interrupted has nothing to clean and repeats one tar.
    """
    tally = _Tally()
    with published(plan.path) as file:
        counted = _Counted(file)
        sink = TarWriter(counted, user="", group="", mode=0o644, mtime=0)
        for sample in _decodable(plan, tally):
            sink.write(sample)
        sink.close()
    entry = TarEntry(
        file=plan.path.name,
        num_samples=tally.num_samples,
        num_bytes=counted.num_bytes,
        sha256=counted.sha256.hexdigest(),
        plan_digest=plan.digest,
        num_pixels=tally.num_pixels,
        rgb_sums=tally.rgb_sums(),
        quarantined=tuple(tally.quarantined),
        box_counts=tally.box_counts,
    )
    write_entry(record_path(plan.path), entry)
    return entry


def record_path(tar: Path) -> Path:
    """Where a finished tar is recorded until the manifest is published."""
    return tar.parent / WORK / f"{tar.name}.json"


class _Counted:
    """Passes bytes on to a file, keeping their number and digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.num_bytes = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.num_bytes += len(data)
        self.sha256.update(data)
        return self._file.write(data)


class _Tally:
    """Sums over the images of one tar."""

    def __init__(self) -> None:
        self.num_samples = 0
        self.num_pixels = 0
        self.quarantined: list[Quarantined] = []
        self.box_counts = BoxCounts()
        self._rgb_sums: npt.NDArray[np.int64] = np.zeros(3, np.int64)

    def add(self, image: RgbImage) -> None:
        height, width, _ = image.shape
        self.num_samples += 1
        self.num_pixels += height * width
        # Rows first, in 32 bits: 20 times as fast as one sum over both axes in 64.
        columns = image.reshape(height, -1).sum(axis=0, dtype=np.uint32)
        self._rgb_sums += columns.reshape(width, 3).sum(axis=0, dtype=np.int64)

    def rgb_sums(self) -> tuple[int, int, int]:
        red, green, blue = self._rgb_sums.tolist()
        return red, green, blue


def _decodable(plan: TarPlan, tally: _Tally) -> Iterator[dict[str, Any]]:
    for sample in plan.samples:
        data = sample.location.read()
        try:
            image = decode_rgb(data, plan.max_pixels)
        except UndecodableImage as error:
            tally.quarantined.append(Quarantined(sample.archive, sample.name, str(error)))
            continue
        tally.add(image)
        known, counts = _known(sample.annotation, data, image)
        tally.box_counts = tally.box_counts.plus(counts)
        yield _members(sample, plan.class_names[sample.label], data, image, known)


def _members(
    sample: PlannedSample,
    class_name: str,
    data: bytes,
    image: RgbImage,
    known: dict[str, Any],
) -> dict[str, Any]:
    height, width, _ = image.shape
    about = {"class_name": class_name, "name": sample.name, "width": width, "height": height}
    return {
        "__key__": sample.key,
        file_extension(data): data,
        "cls": sample.label,
        "json": about | known,
    }


def _known(
    annotation: Annotation | None, data: bytes, image: RgbImage
) -> tuple[dict[str, Any], BoxCounts]:
    """What the annotation adds to a sample's JSON."""
    if annotation is None:
        return {}, BoxCounts()
    height, width, _ = image.shape
    boxes, counts = fit_boxes(annotation, width, height, orientation(data))
    known: dict[str, Any] = {"boxes": boxes} if annotation.boxes else {}
    if annotation.present is not None:
        known |= {"present": annotation.present, "difficult": annotation.difficult}
    return known | ({"blacklisted": True} if annotation.is_blacklisted else {}), counts
