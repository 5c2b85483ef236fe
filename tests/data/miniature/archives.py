"""A miniature but complete ILSVRC-2012: all files, names, formats and quirks of the real one.

1000 synsets with a few images each. Their ILSVRC2012_ID is not in the order of the WNIDs; inner
tars and numbers in file names follow no order; images and boxes have the dirt of `photos`.
"""

import gzip
import hashlib
import io
import random
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

from tests.data.miniature.photos import (
    BROKEN_EXIF,
    CMYK,
    PNG,
    SIDEWAYS,
    Photo,
    annotate,
    photo,
)

NUM_SYNSETS, NUM_INTERNAL = 1000, 860
NUM_TEST = 20
BLACKLIST_ONE_IN = 28
DOGS = ("n02085620", "n02105855")


@dataclass(frozen=True)
class Miniature:
    """What was written, by stem."""

    folder: Path
    train: Mapping[str, Photo]
    val: Mapping[str, Photo]

    @property
    def class_names(self) -> list[str]:
        return sorted({photo.wnid for photo in self.train.values()})


def write_miniature(
    folder: Path,
    shots: Mapping[str, bytes] | None = None,
    num_train: int = 2,
    num_val: int = 1,
    seed: int = 0,
) -> Miniature:
    """Write all archives below `folder`; same arguments, same bytes.

    Args:
        shots: JPEGs by name, `nXXXXXXXX_anything`: each goes to its class, and to classes without
            any. None: made images of some 20x16 pixels.
        num_train, num_val: images of each class.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    wnids = _wnids(rng, shots or {})
    ids = dict(zip(rng.sample(wnids, len(wnids)), range(1, NUM_SYNSETS + 1), strict=True))
    album = _album(wnids, shots or {})
    train = _train_photos(wnids, album, num_train, rng)
    val = _val_photos(wnids, album, num_val, rng)
    mini = Miniature(folder, train, val)
    _write_train(mini, "ILSVRC2012_img_train.tar", rng.sample(wnids, len(wnids)))
    _write_train(mini, "ILSVRC2012_img_train_t3.tar", DOGS)
    _write(folder / "ILSVRC2012_img_val.tar", _jpegs(val))
    tests = {f"test/ILSVRC2012_test_{i:08d}.JPEG": _test_image(i) for i in range(1, NUM_TEST + 1)}
    _write(folder / "ILSVRC2012_img_test_v10102019.tar", tests)
    _write_boxes(mini)
    _write_devkit(mini, ids)
    blacklist = [int(stem[-8:]) for stem, photo in val.items() if photo.is_blacklisted]
    (folder / "ILSVRC2014_clsloc_validation_blacklist.txt").write_text(
        "".join(f"{number}\n" for number in blacklist)
    )
    write_sums(folder)
    return mini


def write_sums(folder: Path) -> None:
    files = [path for path in sorted(folder.iterdir()) if "img" in path.name or "gz" in path.suffix]
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "MD5SUMS").write_text("".join(sums))


def _wnids(rng: random.Random, shots: Mapping[str, bytes]) -> list[str]:
    """Those of the shots, those of the odd images, and others to make 1000; sorted."""
    odd = [*CMYK, PNG, BROKEN_EXIF, *SIDEWAYS]
    wnids = {name.partition("_")[0] for name in [*shots, *odd] if name.startswith("n")} | {*DOGS}
    while len(wnids) < NUM_SYNSETS:
        wnids.add(f"n{rng.randrange(1_440_764, 15_075_141):08d}")
    return sorted(wnids)


def _album(wnids: Sequence[str], shots: Mapping[str, bytes]) -> dict[str, bytes | None]:
    if not shots:
        return dict.fromkeys(wnids)
    own = {name.partition("_")[0]: data for name, data in shots.items()}
    lent = list(own.values())
    return {wnid: own.get(wnid, lent[i % len(lent)]) for i, wnid in enumerate(wnids)}


def _train_photos(
    wnids: Sequence[str], album: Mapping[str, bytes | None], count: int, rng: random.Random
) -> dict[str, Photo]:
    """The first of each class has boxes, as at least 100 of each class of the real one do."""
    odd: dict[str, list[str]] = {}
    for stem in sorted({*CMYK, PNG, BROKEN_EXIF, *SIDEWAYS}):
        odd.setdefault(stem.partition("_")[0], []).append(stem)
    photos: dict[str, Photo] = {}
    for rank, wnid in enumerate(wnids):
        numbers = rng.sample(range(2, 30_000), count)
        stems = [*odd.get(wnid, []), *(f"{wnid}_{number}" for number in numbers)]
        for index, stem in enumerate(stems[:count]):
            photos[stem] = photo(stem, wnid, 7 * rank + index, album[wnid])
            if index == 0:
                annotate(photos[stem], rank, wnids)
    return photos


def _val_photos(
    wnids: Sequence[str], album: Mapping[str, bytes | None], count: int, rng: random.Random
) -> dict[str, Photo]:
    photos: dict[str, Photo] = {}
    labels = rng.sample(list(wnids) * count, len(wnids) * count)
    for number, wnid in enumerate(labels, 1):
        stem = f"ILSVRC2012_val_{number:08d}"
        photos[stem] = photo(stem, wnid, 20_000 + number, album[wnid])
        annotate(photos[stem], number, wnids)
        photos[stem].is_blacklisted = number % BLACKLIST_ONE_IN == 0
    return photos


def _jpegs(photos: Mapping[str, Photo]) -> dict[str, bytes]:
    return {f"{stem}.JPEG": photo.data for stem, photo in photos.items()}


def _test_image(number: int) -> bytes:
    return photo(f"ILSVRC2012_test_{number:08d}", "", number).data


def _write_train(mini: Miniature, name: str, wnids: Sequence[str]) -> None:
    of_class: dict[str, dict[str, Photo]] = {wnid: {} for wnid in wnids}
    for stem, picture in mini.train.items():
        if picture.wnid in of_class:
            of_class[picture.wnid][stem] = picture
    inner = {f"{wnid}.tar": tarred(_jpegs(photos)) for wnid, photos in of_class.items()}
    _write(mini.folder / name, inner)


def _write_boxes(mini: Miniature) -> None:
    train = {
        f"{photo.wnid}/{stem}.xml": photo.xml.encode()
        for stem, photo in mini.train.items()
        if photo.xml
    }
    dogs = {name: data for name, data in train.items() if name.startswith(DOGS)}
    val = {f"val/{stem}.xml": photo.xml.encode() for stem, photo in mini.val.items() if photo.xml}
    _write(mini.folder / "ILSVRC2012_bbox_train_v2.tar.gz", train)
    _write(mini.folder / "ILSVRC2012_bbox_train_dogs.tar.gz", dogs)
    _write(mini.folder / "ILSVRC2012_bbox_val_v3.tgz", val)
    with zipfile.ZipFile(mini.folder / "ILSVRC2012_bbox_test_dogs.zip", "w") as archive:
        for number in range(1, 4):
            archive.writestr(f"test/ILSVRC2012_test_{number:08d}.xml", "<annotation/>")


def _write_devkit(mini: Miniature, ids: Mapping[str, int]) -> None:
    truth = "".join(f"{ids[photo.wnid]}\n" for photo in mini.val.values())
    counts = dict.fromkeys(ids, 0)
    for picture in mini.train.values():
        counts[picture.wnid] += 1
    files = {
        "COPYING": b"For research only.\n",
        "data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        "data/meta.mat": meta(ids, counts),
        "evaluation/demo_eval.m": b"% demo\n",
        "evaluation/eval_flat.m": b"function error = eval_flat(varargin)\n",
        "readme.txt": b"Development kit\n",
    }
    wrapped = {f"ILSVRC2012_devkit_t12/{name}": data for name, data in files.items()}
    _write(mini.folder / "ILSVRC2012_devkit_t12.tar.gz", wrapped)


def meta(ids: Mapping[str, int], counts: Mapping[str, int], compressed: bool = True) -> bytes:
    """meta.mat: 1000 leaves, then 860 synsets above them with the root first."""
    leaves = [
        (number, wnid, f"thing {number}, Thing", f"what {wnid} is", 0, [], 0, counts[wnid])
        for wnid, number in sorted(ids.items(), key=lambda item: item[1])
    ]
    above = [
        (NUM_SYNSETS + i, f"n{90_000_000 + i:08d}", "kind", "a kind", 2, [i, i + 1], 3, 0)
        for i in range(1, NUM_INTERNAL + 1)
    ]
    fields = (
        "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
        "num_train_images",
    )  # fmt: skip
    synsets = np.empty((len(leaves) + len(above), 1), [(field, object) for field in fields])
    for place, row in enumerate([*leaves, *above]):
        numbers = (np.array(v, float) if isinstance(v, int | list) else v for v in row)
        synsets[place, 0] = tuple(numbers)
    with io.BytesIO() as file:
        scipy.io.savemat(file, {"synsets": synsets}, do_compression=compressed, oned_as="row")
        return file.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.uname = len(data), 1_339_000_000, "imagenet"
                tar.addfile(info, io.BytesIO(data))
        return file.getvalue()


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    data = tarred(files)
    path.write_bytes(gzip.compress(data, mtime=0) if "gz" in path.suffix else data)
