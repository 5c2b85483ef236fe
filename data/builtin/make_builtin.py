"""Make the vendored data sets of this folder. Run once, by hand; the program never runs it.

    python -m data.builtin.make_builtin FASHION ANIMALS data/builtin

FASHION is the folder of the four *-ubyte.gz files (Debian package dataset-fashion-mnist, in
/usr/share/datasets/fashion-mnist), ANIMALS the wheel `pip download --no-deps animal-mnist==0.4`
fetches. The same input gives the same bytes.
"""

import argparse
import gzip
import hashlib
import io
import pickle
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy._core import multiarray
from PIL import Image
from webdataset.writer import TarWriter

GreyImages = npt.NDArray[np.uint8]  # (N, H, W)
Labels = npt.NDArray[np.int64]  # (N,)

NUM_FASHION_TRAIN: Final = 12_000
NUM_FASHION_TEST: Final = 2_000
ANIMALS_TEST_ONE_IN: Final = 5  # of the unique images, by content hash
# The official names, in the order of the official labels.
FASHION_CLASSES: Final = (
    "t-shirt-top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
ANIMAL_CLASSES: Final = (
    "bear",
    "bird",
    "cat",
    "cow",
    "dog",
    "elephant",
    "giraffe",
    "horse",
    "sheep",
    "zebra",
)


class Labelled(NamedTuple):
    images: GreyImages
    labels: Labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fashion", type=Path, help="folder of the IDX files")
    parser.add_argument("animals", type=Path, help="the wheel animal_mnist-0.4-py3-none-any.whl")
    parser.add_argument("into", type=Path, help="folder that gets fashion-mnist/ and animal-mnist/")
    arguments = parser.parse_args()
    write_dataset(
        arguments.into / "fashion-mnist", FASHION_CLASSES, *read_fashion(arguments.fashion)
    )
    write_dataset(arguments.into / "animal-mnist", ANIMAL_CLASSES, *read_animals(arguments.animals))


def read_fashion(folder: Path) -> tuple[Labelled, Labelled]:
    """The first images of the official training and test set."""
    train = Labelled(
        read_idx(folder / "train-images-idx3-ubyte.gz")[:NUM_FASHION_TRAIN],
        read_idx(folder / "train-labels-idx1-ubyte.gz")[:NUM_FASHION_TRAIN].astype(np.int64),
    )
    test = Labelled(
        read_idx(folder / "t10k-images-idx3-ubyte.gz")[:NUM_FASHION_TEST],
        read_idx(folder / "t10k-labels-idx1-ubyte.gz")[:NUM_FASHION_TEST].astype(np.int64),
    )
    return train, test


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of an IDX file: 0, 0, type 8 (bytes), number of axes, their lengths, the values."""
    data = gzip.decompress(path.read_bytes())
    zeros, kind, num_axes = struct.unpack(">HBB", data[:4])
    if (zeros, kind) != (0, 8):
        raise ValueError(f"{path}: starts with {data[:4]!r}: expected an IDX file of bytes")
    shape = struct.unpack(f">{num_axes}I", data[4 : 4 + 4 * num_axes])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * num_axes).reshape(shape)


def read_animals(wheel: Path) -> tuple[Labelled, Labelled]:
    """The unique images, the first of each kept, split by the hash of their content."""
    with zipfile.ZipFile(wheel) as package:
        images, labels = (
            read_pickled_array(package.read(f"animal_mnist/data/Animal_MNIST/animal_{what}.gz"))
            for what in ("data_version_3", "label_version_3")
        )
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    unique = sorted(first.values())
    is_test = np.array([is_test_digest(digests[i]) for i in unique])
    kept = Labelled(images[unique], labels[unique])
    return (
        Labelled(kept.images[~is_test], kept.labels[~is_test]),
        Labelled(kept.images[is_test], kept.labels[is_test]),
    )


def is_test_digest(digest: bytes) -> bool:
    return int.from_bytes(digest[:8]) % ANIMALS_TEST_ONE_IN == 0


class ArrayUnpickler(pickle.Unpickler):
    """Rebuilds NumPy arrays and refuses every other global."""

    ALLOWED: Final = {
        ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not needed for an array")
        return self.ALLOWED[module, name]


def read_pickled_array(compressed: bytes) -> npt.NDArray[Any]:
    array = ArrayUnpickler(io.BytesIO(gzip.decompress(compressed))).load()
    if not isinstance(array, np.ndarray):
        raise TypeError(f"the pickle holds {type(array).__name__}: expected an array")
    return array


def write_dataset(folder: Path, classes: tuple[str, ...], train: Labelled, test: Labelled) -> None:
    """Write the tars, classes.txt (sorted; labels index it) and SHA256SUMS."""
    folder.mkdir(exist_ok=True)
    names = sorted(classes)
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    new_label = np.array([names.index(name) for name in classes])
    sums = []
    for split, (images, labels) in (("train", train), ("test", test)):
        path = folder / f"{split}.tar.gz"
        path.write_bytes(webdataset_tar(split, zip(images, new_label[labels], strict=True)))
        sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    (folder / "SHA256SUMS").write_text("".join(sums))


def webdataset_tar(split: str, samples: Iterable[tuple[GreyImages, int]]) -> bytes:
    """A gzip'd tar of KEY.cls and KEY.png; compressed, because a tar pads each member to 1 kB."""
    with io.BytesIO() as file:
        with TarWriter(file, user="", group="", mode=0o644, mtime=0, compress=False) as sink:
            for index, (image, label) in enumerate(samples):
                key = f"{split}-{index:05d}"
                sink.write({"__key__": key, "png": optimised_png(image), "cls": int(label)})
        return gzip.compress(file.getvalue(), mtime=0)


def optimised_png(grey: GreyImages) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(grey).save(file, "PNG", optimize=True)
        return file.getvalue()


if __name__ == "__main__":
    main()
