"""ILSVRC-2012 from its official archives, which stay as they are: nothing is unpacked."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from data.boxes import Annotation, Box
from data.sources.devkit import Devkit, Synset, numbers_of, read_devkit
from data.sources.digests import Digest, digest_of
from data.sources.errors import SourceError
from data.sources.messages import some
from data.sources.places import inside, is_file, is_folder, names_in, read_range
from data.sources.source import ByteRange, ListedSource, SourceSample
from data.sources.strict_tar import tar_members
from data.sources.table import TableWriter
from data.sources.xml_boxes import XmlAnnotation, read_xml

TRAIN: Final = "ILSVRC2012_img_train.tar"
VALIDATION: Final = "ILSVRC2012_img_val.tar"
DEVKIT: Final = "ILSVRC2012_devkit_t12.tar.gz"
TRAIN_BOXES: Final = "ILSVRC2012_bbox_train_v2.tar.gz"
VALIDATION_BOXES: Final = "ILSVRC2012_bbox_val_v3.tgz"
REQUIRED: Final = (TRAIN, VALIDATION, DEVKIT)
OPTIONAL: Final = (TRAIN_BOXES, VALIDATION_BOXES)
TRAIN_IMAGE: Final = re.compile(r"(n\d{8})\.tar/(\1_\d+)\.JPEG")
VALIDATION_IMAGE: Final = re.compile(r"(?:.*/)?(ILSVRC2012_val_(\d{8}))\.JPEG")
MAX_LIST_BYTES: Final = 1 << 20

Annotations = Mapping[str, Annotation]  # by the image's name without extension


def ilsvrc_files(folder: str) -> list[str]:
    """Name the archives that are read, of those in the folder.

    Raises:
        SourceError: a required one is missing.
    """
    if not is_folder(folder):
        raise SourceError(
            f"data.path={folder} is no folder: expected one with {', '.join(REQUIRED)}"
        )
    if missing := [name for name in REQUIRED if not is_file(inside(folder, name))]:
        raise SourceError(
            f"{folder}: lacks {', '.join(missing)}: get what is missing from image-net.org (login) "
            "and leave it packed"
        )
    return [*REQUIRED, *(name for name in OPTIONAL if is_file(inside(folder, name)))]


def ilsvrc_source(folder: str, check_digests: bool, work: Path) -> ListedSource:
    """List ILSVRC-2012: training images, and the validation images as test images.

    A label is the rank of the class's WNID, as everywhere; the development kit's own numbers are
    mapped. Boxes are added where their archives are there.

    Raises:
        SourceError: archives, classes or images missing or too many; another digest; damage.
    """
    names = ilsvrc_files(folder)
    digests = {name: digest_of(folder, name, check_digests) for name in names}
    devkit = read_devkit(inside(folder, DEVKIT), digests[DEVKIT])
    class_names = tuple(sorted(synset.wnid for synset in devkit.synsets.values()))
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    boxes: dict[str, Annotation] = {}
    for name in names:
        if name in OPTIONAL:
            boxes |= _annotations(inside(folder, name), digests[name], devkit, labels)
    boxes |= _blacklisted(_blacklist(folder, devkit), boxes)
    test = _validation(folder, devkit, labels, digests[VALIDATION], boxes)
    with TableWriter(work) as writer:
        writer.extend(_train(folder, devkit, labels, digests[TRAIN], boxes))
        train = writer.table()
    return ListedSource(class_names, train, test)


def _train(
    folder: str,
    devkit: Devkit,
    labels: Mapping[str, int],
    digest: Digest | None,
    boxes: Annotations,
) -> Iterator[SourceSample]:
    place = inside(folder, TRAIN)
    counts = dict.fromkeys(labels, 0)
    for member in tar_members(place, of_tars=True, digest=digest):
        if member.is_folder:
            continue
        found = TRAIN_IMAGE.fullmatch(member.name)
        if not found or found[1] not in labels:
            raise SourceError(
                f"{place}: member {member.name!r} at offset {member.offset}: expected "
                f"WNID.tar/WNID_NUMBER.JPEG of the {len(labels)} classes of the development kit"
            )
        counts[found[1]] += 1
        location = ByteRange(place, member.offset, member.num_bytes)
        name, label = f"{found[2]}.JPEG", labels[found[1]]
        yield SourceSample(name, label, location, place, boxes.get(found[2]))
    _require_counts(place, devkit.synsets.values(), counts)


def _require_counts(place: str, synsets: Iterable[Synset], counts: Mapping[str, int]) -> None:
    if missing := sorted(wnid for wnid, count in counts.items() if count == 0):
        raise SourceError(
            f"{place}: no images of {some(missing)}: {len(missing)} of {len(counts)} classes are "
            "missing: fetch the archive again"
        )
    wrong = [
        f"{synset.wnid} has {counts[synset.wnid]}, not {synset.num_train_images}"
        for synset in synsets
        if counts[synset.wnid] != synset.num_train_images
    ]
    if wrong:
        raise SourceError(
            f"{place}: {len(wrong)} classes have other numbers of images than the development kit "
            f"says: {some(sorted(wrong))}: fetch both from the same place"
        )


def _validation(
    folder: str,
    devkit: Devkit,
    labels: Mapping[str, int],
    digest: Digest | None,
    boxes: Annotations,
) -> list[SourceSample]:
    place = inside(folder, VALIDATION)
    samples: dict[int, SourceSample] = {}
    for member in tar_members(place, digest=digest):
        if member.is_folder:
            continue
        found = VALIDATION_IMAGE.fullmatch(member.name)
        if not found or not 1 <= int(found[2]) <= len(devkit.validation_ids):
            raise SourceError(
                f"{place}: member {member.name!r} at offset {member.offset}: expected "
                f"ILSVRC2012_val_NNNNNNNN.JPEG, numbered 1 to {len(devkit.validation_ids)} as the "
                "development kit's ground truth is"
            )
        number = int(found[2])
        label = labels[devkit.synsets[devkit.validation_ids[number - 1]].wnid]
        location = ByteRange(place, member.offset, member.num_bytes)
        samples[number] = SourceSample(
            f"{found[1]}.JPEG", label, location, place, boxes.get(found[1])
        )
    if missing := sorted(set(range(1, len(devkit.validation_ids) + 1)) - samples.keys()):
        raise SourceError(
            f"{place}: {len(missing)} of {len(devkit.validation_ids)} images are missing: numbers "
            f"{some([str(number) for number in missing])}: fetch the archive again"
        )
    return [samples[number] for number in sorted(samples)]


def _annotations(
    place: str, digest: Digest | None, devkit: Devkit, labels: Mapping[str, int]
) -> dict[str, Annotation]:
    annotations: dict[str, Annotation] = {}
    for member in tar_members(place, digest=digest):
        if member.name.endswith(".xml"):
            stem = member.name.rpartition("/")[2].removesuffix(".xml")
            xml = read_xml(member.read(), f"{place}: member {member.name!r}")
            annotations[stem] = _annotation(xml, _wnid(stem, devkit), labels)
    return annotations


def _wnid(stem: str, devkit: Devkit) -> str:
    """The class of an image; "" for one that is not there."""
    if not stem.startswith("ILSVRC2012_val_"):
        return stem.partition("_")[0]
    number = int(stem[-8:]) if stem[-8:].isdecimal() else 0
    known = 1 <= number <= len(devkit.validation_ids)
    return devkit.synsets[devkit.validation_ids[number - 1]].wnid if known else ""


def _annotation(xml: XmlAnnotation, wnid: str, labels: Mapping[str, int]) -> Annotation:
    """Objects called by no WNID, as "Scottish_deerhound" in many XMLs of dogs, are the class's."""
    boxes: tuple[Box, ...] = tuple(
        thing.box(thing.name if thing.name in labels else wnid) for thing in xml.objects
    )
    return Annotation(xml.width, xml.height, boxes)


def _blacklist(folder: str, devkit: Devkit) -> frozenset[int]:
    """Numbers of validation images without usable boxes: from the kit, or from a file beside it."""
    for name in names_in(folder):
        if name.endswith("validation_blacklist.txt"):
            place = inside(folder, name)
            numbers = numbers_of(place, read_range(place, 0, MAX_LIST_BYTES))
            for line, number in enumerate(numbers, 1):
                if not 1 <= number <= len(devkit.validation_ids):
                    raise SourceError(
                        f"{place}, line {line}: {number} is the number of no validation image: "
                        f"those go from 1 to {len(devkit.validation_ids)}"
                    )
            return frozenset(numbers)
    return devkit.blacklist


def _blacklisted(numbers: Iterable[int], boxes: Annotations) -> dict[str, Annotation]:
    stems = [f"ILSVRC2012_val_{number:08d}" for number in numbers]
    return {stem: boxes.get(stem, Annotation())._replace(is_blacklisted=True) for stem in stems}
