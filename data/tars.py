"""Writing one WebDataset tar: atomic, and the same bytes for the same plan."""

import hashlib
import json
import os
from bisect import bisect_right
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from data.boxes import Annotation, BoxCounts, fit_boxes, scale_boxes
from data.decode import RgbImage, UndecodableImage, file_extension, orientation
from data.look import Look, glance_at, look_at
from data.manifest import SIDE_EDGES, Quarantined, TarEntry, write_entry
from data.originals import Originals
from data.plan import PlannedSample, TarPlan
from data.publish import published
from data.shrink import shrunk
from data.tar_format import end_mark, member_header, padding

WORK: Final = ".staging"  # sub-folder of what staging needs until it ends
WRITE_BACK_BYTES: Final = 8 << 20
NO_BOXES: Final = BoxCounts()
SEEN_FOR_MEAN: Final = 8  # images of a tar, where not all are decoded


def write_tar(plan: TarPlan) -> TarEntry:
    """Make the tar of one plan and record it as finished.

    A sample has three members: the image's original bytes, or smaller ones where that is planned,
    `.cls` (the label as text) and `.json` (class_name; name of the original; width and height as
    decoded, pixels; sha256 of the image's bytes; of annotated images also boxes, present, difficult
    and blacklisted, where known). Images that cannot be decoded are left out and listed in the
    entry.

    Same plan, same bytes. The tar appears under its name only when complete and on disk, and its
    record after it: whoever is interrupted has nothing to clean and repeats one tar.
    """
    tally = _Tally()
    with published(plan.path) as file, Originals() as originals:
        counted = _Counted(file)
        read = originals.in_turn([sample.location for sample in plan.samples])
        for sample, data in zip(plan.samples, read, strict=True):
            try:
                look = _looked_at(data, plan, with_pixels=tally.num_samples < SEEN_FOR_MEAN)
            except UndecodableImage as error:
                tally.quarantined.append(Quarantined(sample.archive, sample.name, str(error)))
                continue
            about, counts = _known(sample.annotation, data, look)
            tally.box_counts = tally.box_counts.plus(counts)
            if plan.shrinking is not None:
                large, (data, look) = look, shrunk(data, look, plan.shrinking)
                about = _scaled(about, look.width / large.width, look.height / large.height)
            tally.add(look)
            _write_sample(counted, plan.class_names[sample.label], sample, data, look, about)
        counted.write(end_mark(counted.num_bytes))
    entry = TarEntry(
        file=plan.path.name,
        num_samples=tally.num_samples,
        num_bytes=counted.num_bytes,
        sha256=counted.sha256.hexdigest(),
        plan_digest=plan.digest,
        num_pixels=tally.num_pixels,
        rgb_sums=tally.rgb_sums(),
        side_counts=tuple(tally.side_counts),
        quarantined=tuple(tally.quarantined),
        box_counts=tally.box_counts,
    )
    write_entry(record_path(plan.path), entry)
    return entry


def record_path(tar: Path) -> Path:
    """Where a finished tar is recorded until the manifest is published."""
    return tar.parent / WORK / f"{tar.name}.json"


class _Counted:
    """A tar being written: its size, and the digest of all that `write` has written.

    Images are only passed on: their digests lie in the JSON beside them, which is written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._on_its_way = 0  # bytes
        self.num_bytes = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.sha256.update(data)
        self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        self.num_bytes += len(data)
        self._file.write(data)
        if self.num_bytes - self._on_its_way >= WRITE_BACK_BYTES:
            self._write_back()

    def _write_back(self) -> None:
        """Have the system begin to write to the disk, and go on meanwhile.

        Left to the sync at the end, disk and cores would take turns. That the advice begins writing
        is Linux's way; elsewhere it is harmless.
        """
        self._file.flush()
        num_bytes = self.num_bytes - self._on_its_way
        os.posix_fadvise(self._file.fileno(), self._on_its_way, num_bytes, os.POSIX_FADV_DONTNEED)
        self._on_its_way = self.num_bytes


class _Tally:
    """Sums over the images of one tar."""

    def __init__(self) -> None:
        self.num_samples = 0
        self.num_pixels = 0  # of those decoded
        self.side_counts = [0] * (len(SIDE_EDGES) + 1)
        self.quarantined: list[Quarantined] = []
        self.box_counts = BoxCounts()
        self._rgb_sums: npt.NDArray[np.int64] = np.zeros(3, np.int64)

    def add(self, look: Look) -> None:
        self.num_samples += 1
        self.side_counts[bisect_right(SIDE_EDGES, min(look.width, look.height))] += 1
        if look.image is not None:
            self._add_pixels(look.image)

    def _add_pixels(self, image: RgbImage) -> None:
        height, width, _ = image.shape
        self.num_pixels += height * width
        # Rows first, in 32 bits: 20 times as fast as one sum over both axes in 64.
        columns = image.reshape(height, -1).sum(axis=0, dtype=np.uint32)
        self._rgb_sums += columns.reshape(width, 3).sum(axis=0, dtype=np.int64)

    def rgb_sums(self) -> tuple[int, int, int]:
        red, green, blue = self._rgb_sums.tolist()
        return red, green, blue


def _looked_at(data: bytes, plan: TarPlan, with_pixels: bool) -> Look:
    if plan.decode_all or plan.shrinking is not None:
        return look_at(data, plan.max_pixels)
    return glance_at(data, plan.max_pixels, with_pixels)


def _write_sample(
    sink: _Counted,
    class_name: str,
    sample: PlannedSample,
    data: bytes,
    look: Look,
    known: dict[str, Any],
) -> None:
    about: dict[str, Any] = {
        "class_name": class_name,
        "name": sample.name,
        "width": look.width,
        "height": look.height,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    sink.write(member_header(f"{sample.key}.{file_extension(data)}", len(data)))
    sink.pass_on(data)
    label = str(sample.label).encode()
    text = json.dumps(about | known).encode()
    sink.write(
        b"".join(
            (
                padding(len(data)),
                member_header(f"{sample.key}.cls", len(label)),
                label,
                padding(len(label)),
                member_header(f"{sample.key}.json", len(text)),
                text,
                padding(len(text)),
            )
        )
    )


def _known(
    annotation: Annotation | None, data: bytes, look: Look
) -> tuple[dict[str, Any], BoxCounts]:
    """What the annotation adds to a sample's JSON."""
    if annotation is None:
        return {}, NO_BOXES
    boxes, counts = fit_boxes(annotation, look.width, look.height, orientation(data))
    known: dict[str, Any] = {"boxes": boxes} if annotation.boxes else {}
    if annotation.present is not None:
        known |= {"present": annotation.present, "difficult": annotation.difficult}
    return known | ({"blacklisted": True} if annotation.is_blacklisted else {}), counts


def _scaled(about: dict[str, Any], x: float, y: float) -> dict[str, Any]:
    boxes = about.get("boxes")
    return about if boxes is None else about | {"boxes": scale_boxes(boxes, x, y)}
