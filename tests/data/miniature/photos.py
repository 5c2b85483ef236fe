"""Images and boxes with the real ILSVRC-2012's dirt, and what must come of each."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

# Where the real one has them, or in a class that it has.
CMYK = {
    "n01739381_1309", "n02077923_14822", "n02447366_23489", "n02492035_15739", "n02747177_10752",
    "n03018349_4028", "n03062245_4620", "n03347037_9675", "n03467068_12171", "n03529860_11437",
    "n03544143_17228", "n03633091_5218", "n03710637_5125", "n03961711_5286", "n04033995_2932",
    "n04258138_17003", "n04264628_27969", "n04336792_7448", "n04371774_5854", "n04596742_4225",
    "n07583066_647", "n13037406_4650", "ILSVRC2012_val_00000877",
}  # fmt: skip
PNG = "n02105855_2933"
SIDEWAYS = {"n02018795_10": 6, "n02190166_10": 8, "n02231487_10": 3, "n01775062_10": 5}
BROKEN_EXIF = "n04152593_17460"
SHAPES = ((20, 16), (16, 20), (18, 18), (24, 10))
NUM_DIRTS = 10  # ways in which an annotation can be odd


@dataclass
class Photo:
    """One image as it goes in, and what staging must give for it."""

    stem: str
    wnid: str
    data: bytes
    width: int  # upright
    height: int
    xml: str | None = None
    boxes: list[dict[str, Any]] = field(default_factory=list)
    fate: Counter[str] = field(default_factory=Counter)  # of its boxes
    is_blacklisted: bool = False

    @property
    def json(self) -> dict[str, Any]:
        """The sample's JSON, which has to come out exactly so."""
        name = f"{self.stem}.JPEG"
        about = {"class_name": self.wnid, "name": name, "width": self.width, "height": self.height}
        known = {"boxes": self.boxes} if self.fate else {}
        return about | known | ({"blacklisted": True} if self.is_blacklisted else {})


def photo(stem: str, wnid: str, seed: int, shot: bytes | None = None) -> Photo:
    """An image called `stem`: the given JPEG, or a made one; odd where the real one is odd."""
    image = Image.open(io.BytesIO(shot)).convert("RGB") if shot else made(seed)
    data = shot
    if stem in CMYK:
        data = encoded(image.convert("CMYK"), "JPEG")
    elif stem == PNG:
        data = encoded(image.convert("RGBA"), "PNG")
    elif stem in SIDEWAYS:
        exif = Image.Exif()
        exif[0x0112] = SIDEWAYS[stem]
        data = encoded(image, "JPEG", exif=exif)
    elif stem == BROKEN_EXIF:
        data = encoded(image, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffbroken")
    elif data is None:
        data = encoded(image.convert("L") if seed % 10 == 3 else image, "JPEG")
    width, height = image.size
    if SIDEWAYS.get(stem, 1) > 4:
        width, height = height, width
    return Photo(stem, wnid, data, width, height)


def made(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return coarse.resize(SHAPES[seed % len(SHAPES)], Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def annotate(photo: Photo, seed: int, others: Sequence[str]) -> None:
    """Give it an XML with one of NUM_DIRTS kinds of dirt, and the boxes that must come of it."""
    if photo.stem in SIDEWAYS:
        _annotate_sideways(photo)
        return
    w, h = photo.width, photo.height
    plain, frame, name = (w // 4, h // 4, w // 2 + 1, h // 2 + 2), (w, h), photo.wnid
    written, wanted = [(name, plain)], [(name, plain)]
    match seed % NUM_DIRTS:
        case 1:  # the annotator saw it twice as large
            frame, written = (2 * w, 2 * h), [(name, tuple(2 * edge for edge in plain))]
        case 2:
            written = [(name, (plain[2], plain[3], plain[0], plain[1]))]
            photo.fate["reordered"] += 1
        case 3:
            written, wanted = [(name, (-3, 2, w + 5, h))], [(name, (0, 2, w, h))]
            photo.fate["clipped"] += 1
        case 4:
            written = wanted = [(name, (1.5, 2.25, 7.75, 8))]
        case 5:
            written = [(name, plain), (name, (w + 2, 0, w + 9, h))]
            photo.fate["dropped"] += 1
        case 6:
            written = [("Scottish_deerhound", plain)]
        case 8:
            frame, wanted = (w // 2, h // 2), []
            written = [(name, (1, 1, w // 2 - 1, h // 2 - 1))]
            scale = (w / (w // 2), h / (h // 2))
            box = [scale[0], scale[1], (w // 2 - 1) * scale[0], (h // 2 - 1) * scale[1]]
            wanted = [(name, tuple(round(edge, 3) for edge in box))]
        case 9:
            written = wanted = [(name, plain), (others[seed % len(others)], (0, 0, w, h))]
    photo.fate["kept"] += len(wanted)
    photo.boxes = [{"class_name": name, "box": list(box)} for name, box in wanted]
    photo.xml = xml("%s" if seed % NUM_DIRTS == 7 else photo.stem, frame, written)


def _annotate_sideways(photo: Photo) -> None:
    """The box is drawn into the stored pixels, and found again in those that Pillow turns."""
    turn = {
        3: Image.Transpose.ROTATE_180,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        8: Image.Transpose.ROTATE_90,
    }[SIDEWAYS[photo.stem]]
    stored = Image.open(io.BytesIO(photo.data)).size
    mask = Image.new("L", stored)
    box = (2, 3, 9, 9)
    mask.paste(255, box)
    photo.boxes = [{"class_name": photo.wnid, "box": list(mask.transpose(turn).getbbox())}]
    photo.fate["kept"] += 1
    photo.xml = xml(photo.stem, stored, [(photo.wnid, box)])


def xml(stem: str, frame: tuple[int, int], objects: Sequence[tuple[str, Sequence[float]]]) -> str:
    """As the real ones are written."""
    lines = [
        "<annotation>", f"\t<folder>{stem.partition('_')[0]}</folder>",
        f"\t<filename>{stem}</filename>", "\t<source>", "\t\t<database>ILSVRC_2012</database>",
        "\t</source>", "\t<size>", f"\t\t<width>{frame[0]}</width>",
        f"\t\t<height>{frame[1]}</height>", "\t\t<depth>3</depth>", "\t</size>",
        "\t<segmented>0</segmented>",
    ]  # fmt: skip
    for name, box in objects:
        edges = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        lines += [
            "\t<object>", f"\t\t<name>{name}</name>", "\t\t<pose>Unspecified</pose>",
            "\t\t<truncated>0</truncated>", "\t\t<difficult>0</difficult>", "\t\t<bndbox>",
            *(f"\t\t\t<{edge}>{value}</{edge}>" for edge, value in edges),
            "\t\t</bndbox>", "\t</object>",
        ]  # fmt: skip
    return "\n".join([*lines, "</annotation>", ""])


def total_fate(photos: Mapping[str, Photo]) -> Counter[str]:
    return sum((photo.fate for photo in photos.values()), Counter())
