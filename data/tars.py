"""Writing one WebDataset tar: atomic, and the same bytes for the same plan."""

import hashlib
import json
from bisect import bisect_right
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from data.boxes import Annotation, BoxCounts, fit_boxes, scale_boxes
from data.decode import RgbImage, UndecodableImage, file_extension, orientation
from data.direct_file import DirectFile
from data.image_digests import LEFT_OUT, write_digests
from data.look import Look, glance_at, look_at
from data.manifest import SIDE_EDGES, Quarantined, TarEntry, write_entry
from data.originals import Originals
from data.plan import PlannedSample, TarPlan
from data.publish import published
from data.shrink import shrunk
from data.tar_format import BLOCK_BYTES, end_mark, member, member_header, padding

WORK: Final = ".staging"  # sub-folder of what staging needs until it ends
NO_BOXES: Final = BoxCounts()
SEEN_FOR_MEAN: Final = 4  # images of each SAMPLES_PER_SEEN of a tar, where not all are decoded
SAMPLES_PER_SEEN: Final = 512


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
    tally, samples, class_names = _Tally(), plan.samples, plan.class_names
    num_seen = _num_seen_for_mean(plan)
    digests = bytearray()
    with published(plan.path) as file, DirectFile(file) as direct, Originals() as originals:
        sink = _Sink(direct)
        read = originals.in_turn([sample.location for sample in samples], sink.room)
        for sample, data in zip(samples, read, strict=True):
            try:
                look = _looked_at(data, plan, with_pixels=tally.num_samples < num_seen)
            except UndecodableImage as error:
                tally.quarantined.append(Quarantined(sample.archive, sample.name, str(error)))
                digests += LEFT_OUT
                continue
            about, counts = _known(sample.annotation, data, look)
            if counts is not NO_BOXES:
                tally.box_counts = tally.box_counts.plus(counts)
            if plan.shrinking is not None:
                large, (small, look) = look, shrunk(data, look, plan.shrinking)
                about = _scaled(about, look.width / large.width, look.height / large.height)
                if small is not data:
                    data = sink.room(len(small))
                    data[:] = small
            tally.add(look)
            digests += _write_sample(sink, class_names[sample.label], sample, data, look, about)
        sink.finish()
    entry = TarEntry(
        file=plan.path.name,
        num_samples=tally.num_samples,
        num_bytes=sink.num_bytes,
        sha256=sink.sha256.hexdigest(),
        plan_digest=plan.digest_of(samples),
        num_pixels=tally.num_pixels,
        rgb_sums=tally.rgb_sums(),
        side_counts=tuple(tally.side_counts),
        quarantined=tuple(tally.quarantined),
        box_counts=tally.box_counts,
    )
    write_digests(plan, entry, digests)
    write_entry(record_path(plan.path), entry)
    return entry


def record_path(tar: Path) -> Path:
    """Where a finished tar is recorded until the manifest is published."""
    return tar.parent / WORK / f"{tar.name}.json"


class _Sink:
    """A tar being written: the digest of all that is in it but the images.

    Those have digests of their own, in the JSON beside them, which is hashed.
    """

    def __init__(self, file: DirectFile) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    @property
    def num_bytes(self) -> int:
        return self._file.num_bytes

    def room(self, num_bytes: int) -> memoryview:
        """Where the next image may be put before it is known whether it stays, and as what."""
        return self._file.room(BLOCK_BYTES + num_bytes)[BLOCK_BYTES:]

    def take(self, name: str, num_bytes: int) -> None:
        """Make the image in the room a member."""
        header = member_header(name, num_bytes)
        self.sha256.update(header)
        self._file.room(BLOCK_BYTES)[:] = header
        self._file.append(BLOCK_BYTES + num_bytes)

    def write(self, data: bytes) -> None:
        self.sha256.update(data)
        self._file.room(len(data))[:] = data
        self._file.append(len(data))

    def finish(self) -> None:
        self.write(end_mark(self.num_bytes))
        self._file.finish()


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


def _num_seen_for_mean(plan: TarPlan) -> int:
    """The mean is the training set's; its error falls with the size of the set, not of its tars."""
    return -(-plan.num_samples // SAMPLES_PER_SEEN) * SEEN_FOR_MEAN if plan.split == "train" else 0


def _looked_at(data: memoryview, plan: TarPlan, with_pixels: bool) -> Look:
    if plan.decode_all or plan.shrinking is not None:
        return look_at(data, plan.max_pixels)
    return glance_at(data, plan.max_pixels, with_pixels)


def _write_sample(
    sink: _Sink,
    class_name: str,
    sample: PlannedSample,
    data: memoryview,
    look: Look,
    known: dict[str, Any],
) -> bytes:
    num_bytes, digest = len(data), hashlib.sha256(data)
    about = {
        "class_name": class_name,
        "name": sample.name,
        "width": look.width,
        "height": look.height,
        "sha256": digest.hexdigest(),
    }
    label, text = str(sample.label).encode(), json.dumps(about | known).encode()
    sink.take(f"{sample.key}.{file_extension(data)}", num_bytes)
    beside = member(f"{sample.key}.cls", label), member(f"{sample.key}.json", text)
    sink.write(b"".join((padding(num_bytes), *beside)))
    return digest.digest()


def _known(
    annotation: Annotation | None, data: memoryview, look: Look
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
