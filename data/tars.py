"""Writing one WebDataset tar: atomic, and the same bytes for the same plan."""

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple

from data.boxes import Annotation, BoxCounts, fit_boxes, scale_boxes
from data.decode import Encoded, UndecodableImage, file_extension, orientation
from data.direct_file import DirectFile
from data.image_digests import LEFT_OUT, write_digests
from data.look import Look, glance_at, look_at
from data.manifest import Quarantined, TarEntry, write_entry
from data.originals import Originals
from data.plan import PlannedSample, TarPlan
from data.publish import published
from data.sample_groups import groups_of
from data.sample_json import sample_json
from data.shrink import shrunk
from data.tally import Tally
from data.tar_format import member, member_header, padding
from data.tar_sink import Place, TarSink

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
    tally, samples, class_names = Tally(), plan.samples, plan.class_names
    digests = bytearray()
    locations = [sample.location for sample in samples]
    with (
        published(plan.path) as file,
        DirectFile(file) as direct,
        Originals(locations) as originals,
    ):
        sink = TarSink(direct)
        for group in groups_of(plan, samples, class_names):
            places = sink.places([sample.location.num_bytes for sample in group])
            for place in places:
                originals.read_into(place.memory)
            usable = [_usable(*both, plan, tally) for both in zip(group, places, strict=True)]
            hashes = [hashlib.sha256(image.data) if image else None for image in usable]
            for sample, image, digest in zip(group, usable, hashes, strict=True):
                if image is None or digest is None:
                    digests += LEFT_OUT
                    continue
                _write_sample(sink, class_names[sample.label], sample, image, digest.hexdigest())
                digests += digest.digest()
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


class _Usable(NamedTuple):
    """An image that goes into the tar."""

    data: Encoded
    start: int | None  # where in the tar these bytes lie, unless something else comes before them
    width: int
    height: int
    known: dict[str, Any]  # what the annotation adds to its JSON


def _usable(sample: PlannedSample, place: Place, plan: TarPlan, tally: Tally) -> _Usable | None:
    """Look at an image and count it; None if it cannot be decoded."""
    data: Encoded = place.memory
    with_pixels = tally.num_samples < _num_seen_for_mean(plan)
    try:
        look = _looked_at(data, plan, with_pixels)
    except UndecodableImage as error:
        tally.quarantined.append(Quarantined(sample.archive, sample.name, str(error)))
        return None
    known, counts = _known(sample.annotation, data, look)
    if counts is not NO_BOXES:
        tally.box_counts = tally.box_counts.plus(counts)
    start: int | None = place.start
    if plan.shrinking is not None:
        large, (data, look) = look, shrunk(data, look, plan.shrinking)
        known = _scaled(known, look.width / large.width, look.height / large.height)
        start = start if data is place.memory else None
    tally.add(look)
    return _Usable(data, start, look.width, look.height, known)


def _num_seen_for_mean(plan: TarPlan) -> int:
    """The mean is the training set's; its error falls with the size of the set, not of its tars."""
    return -(-plan.num_samples // SAMPLES_PER_SEEN) * SEEN_FOR_MEAN if plan.split == "train" else 0


def _looked_at(data: Encoded, plan: TarPlan, with_pixels: bool) -> Look:
    if plan.decode_all or plan.shrinking is not None:
        return look_at(data, plan.max_pixels)
    return glance_at(data, plan.max_pixels, with_pixels)


def _write_sample(
    sink: TarSink, class_name: str, sample: PlannedSample, image: _Usable, sha256: str
) -> None:
    text = sample_json(class_name, sample.name, image.width, image.height, sha256, image.known)
    header = member_header(f"{sample.key}.{file_extension(image.data)}", len(image.data))
    label = member(f"{sample.key}.cls", str(sample.label).encode())
    about = member(f"{sample.key}.json", text.encode())
    beside = b"".join((padding(len(image.data)), label, about))
    sink.add(header, image.data, image.start, beside)


def _known(
    annotation: Annotation | None, data: Encoded, look: Look
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
