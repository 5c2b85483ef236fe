"""Real JPEGs to measure with: those of a tar, or photographs that installed packages ship."""

import io
import sys
import tarfile
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from PIL import Image

SHIPPED: Final = {
    "sklearn": ["datasets/images/flower.jpg", "datasets/images/china.jpg"],
    "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg"],
}
SIZE: Final = (500, 375)  # ImageNet's most frequent
QUALITY: Final = 92


def photographs(count: int, parts: Collection[str] = ()) -> list[bytes]:
    """The first JPEGs of the tar that the command line names; without one, parts of shipped ones.

    Real ones differ in size and quality, so figures from ImageNet's own are worth more.

    Args:
        parts: arguments that are no tar: what is to be measured.
    """
    tars = [Path(argument) for argument in sys.argv[1:] if argument not in parts]
    if tars and not tars[0].is_file():
        expected = " or ".join(("a tar of JPEGs", *parts))
        raise SystemExit(f"{tars[0]}: no such file: expected {expected}")
    return _of_tar(tars[0], count) if tars else _cut_from_shipped(count)


def _of_tar(path: Path, count: int) -> list[bytes]:
    with tarfile.open(path) as tar:
        files = (tar.extractfile(member) for member in tar)
        found = [data for file in files if file and (data := file.read()).startswith(b"\xff\xd8")]
    return found[:count]


def _cut_from_shipped(count: int) -> list[bytes]:
    originals = []
    for package, names in SHIPPED.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        originals += [Image.open(Path(spec.origin).parent / name) for name in names]
    return [_part(originals[i % len(originals)], i) for i in range(count)]


def _part(image: Image.Image, number: int) -> bytes:
    """A part of ImageNet's usual shape, another one for each number."""
    width, height = (SIZE, SIZE[::-1])[number % 5 == 0]
    left = number * 7 % (image.width - width + 1)
    top = number * 11 % (image.height - height + 1) if image.height > height else 0
    part = image.crop((left, top, left + width, min(image.height, top + height)))
    with io.BytesIO() as file:
        part.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()
