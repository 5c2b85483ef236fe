"""The data sets that come with the program: no download, no preparation."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.sources.errors import SourceError
from data.sources.source import ListedSource, SourceSample, Split, Spool
from data.sources.strict_tar import tar_members

VENDORED: Final = Path(__file__).parent.parent / "builtin"
DIGITS_TEST_ONE_IN: Final = 5  # of each class


def builtin_source(name: str, spool_path: Path) -> ListedSource:
    """Give one of BUILTIN_NAMES; origins and licences are in data/builtin/NAME/README.md."""
    with Spool(spool_path) as spool:
        return _digits(spool) if name == "digits" else _vendored(VENDORED / name, spool)


def _vendored(folder: Path, spool: Spool) -> ListedSource:
    class_names = tuple((folder / "classes.txt").read_text().split())
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    digests = {name: digest for digest, name in (line.split() for line in lines)}

    def samples(split: Split) -> list[SourceSample]:
        path = folder / f"{split}.tar.gz"
        if hashlib.sha256(path.read_bytes()).hexdigest() != digests[path.name]:
            raise SourceError(f"{path}: differs from its SHA256SUMS: install the program again")
        return list(_pairs(path, spool))

    return ListedSource(class_names, samples("train"), samples("test"))


def _pairs(path: Path, spool: Spool) -> Iterator[SourceSample]:
    """Each key has its members side by side: KEY.cls, the label as text, then KEY.png."""
    label = -1
    for member in tar_members(str(path)):
        if member.name.endswith(".cls"):
            label = int(member.read())
        else:
            yield SourceSample(member.name, label, spool.append(member.read()), str(path))


def _digits(spool: Spool) -> ListedSource:
    """Grey 8x8 images of scikit-learn, 0..16 scaled to 0..255; of a class every fifth tests."""
    from sklearn.datasets import load_digits  # slow to import, and only this set needs it

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    splits: dict[Split, list[SourceSample]] = {"train": [], "test": []}
    num_seen = Counter[int]()
    for index, (image, label) in enumerate(zip(pixels, digits.target.tolist(), strict=True)):
        num_seen[label] += 1
        split: Split = "train" if num_seen[label] % DIGITS_TEST_ONE_IN else "test"
        name = f"{split}/{label}/{index:04d}.png"
        splits[split].append(SourceSample(name, label, spool.append(_png(image)), "digits"))
    return ListedSource(tuple("0123456789"), splits["train"], splits["test"])


def _png(grey: npt.NDArray[np.uint8]) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(grey).save(file, "PNG", optimize=True)
        return file.getvalue()
