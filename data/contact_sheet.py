"""A page of small pictures: what is in a tar, at a glance.

python -m data.contact_sheet STAGED/FOLDER/SPLIT-NUMBER.tar PICTURE.png
"""

import sys
from pathlib import Path
from typing import IO, Final

from PIL import Image, ImageDraw, ImageOps

from data.decode import decode_rgb, smallest_scale
from data.manifest import read_manifest
from data.sources.source import SPLITS, Split
from data.staged_tar import StagedTar, opened_tar
from data.told import told

PICTURE_SIDE: Final = 96  # pixels
CAPTION_HEIGHT: Final = 14
GAP: Final = 4
COLUMNS: Final = 16


def contact_sheet(
    folder: Path, split: Split, tar: int, columns: int, max_images: int | None = None
) -> Image.Image:
    """Show the images of one staged tar in its order, each with its class name below."""
    manifest = read_manifest(folder)
    entries = manifest.train if split == "train" else manifest.test
    if tar >= len(entries):
        raise ValueError(f"{folder}: has {len(entries)} {split} tars: tar {tar} is none of them")
    with opened_tar(folder, entries[tar]) as (staged, file):
        labels = staged.labels[:max_images].tolist()
        rows = -(-len(labels) // columns)
        width, height = PICTURE_SIDE + GAP, PICTURE_SIDE + CAPTION_HEIGHT + GAP
        sheet = Image.new("RGB", (GAP + columns * width, GAP + rows * height), "white")
        pen = ImageDraw.Draw(sheet)
        for position, label in enumerate(labels):
            left, top = GAP + position % columns * width, GAP + position // columns * height
            sheet.paste(_picture(staged, file, position, manifest.max_pixels), (left, top))
            caption = _fitting(pen, manifest.class_names[label])
            pen.text((left, top + PICTURE_SIDE), caption, fill="black")
    return sheet


def _fitting(pen: ImageDraw.ImageDraw, name: str) -> str:
    """As much of a class's name as fits below a picture."""
    if pen.textlength(name) <= PICTURE_SIDE:
        return name
    while pen.textlength(f"{name}..") > PICTURE_SIDE:
        name = name[:-1]
    return f"{name}.."


def _picture(staged: StagedTar, file: IO[bytes], position: int, max_pixels: int) -> Image.Image:
    scale = smallest_scale(int(staged.sizes[position].min()), PICTURE_SIDE)
    image = Image.fromarray(decode_rgb(staged.image(file, position), max_pixels, scale))
    return ImageOps.pad(image, (PICTURE_SIDE, PICTURE_SIDE), color="white")


def main(arguments: list[str]) -> None:
    """Draw the sheet of the tar that the command line names."""
    if len(arguments) != 2:
        sys.exit("usage: python -m data.contact_sheet STAGED/FOLDER/SPLIT-NUMBER.tar PICTURE.png")
    tar = Path(arguments[0])
    split, _, number = tar.stem.rpartition("-")
    if split not in SPLITS or not number.isdigit():
        sys.exit(f"{tar}: expected the name of a staged tar, as train-000000.tar")
    with told():
        contact_sheet(tar.parent, split, int(number), COLUMNS).save(arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
