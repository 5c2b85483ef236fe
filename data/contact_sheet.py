"""A page of small pictures: what is in a tar, at a glance."""

from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageOps

from data.decode import decode_rgb
from data.manifest import read_manifest
from data.sources.source import Split
from data.staged_tar import open_tar

PICTURE_SIDE: Final = 72  # pixels
CAPTION_HEIGHT: Final = 14
GAP: Final = 4
MAX_CAPTION_CHARS: Final = 12


def contact_sheet(folder: Path, split: Split, tar: int, columns: int) -> Image.Image:
    """Show all images of one staged tar in its order, each with its class name below."""
    manifest = read_manifest(folder)
    entries = manifest.train if split == "train" else manifest.test
    staged = open_tar(folder, entries[tar])
    rows = -(-len(staged) // columns)
    width, height = PICTURE_SIDE + GAP, PICTURE_SIDE + CAPTION_HEIGHT + GAP
    sheet = Image.new("RGB", (GAP + columns * width, GAP + rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    with staged.path.open("rb") as file:
        for position, label in enumerate(staged.labels.tolist()):
            image = Image.fromarray(decode_rgb(staged.image(file, position), manifest.max_pixels))
            left, top = GAP + position % columns * width, GAP + position // columns * height
            sheet.paste(
                ImageOps.pad(image, (PICTURE_SIDE, PICTURE_SIDE), color="white"), (left, top)
            )
            caption = manifest.class_names[label][:MAX_CAPTION_CHARS]
            pen.text((left, top + PICTURE_SIDE), caption, fill="black")
    return sheet
