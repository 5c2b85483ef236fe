"""The hostile corpus: what comes in, and what has to be said about it."""

import gzip
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.data.hostile.bombs import (
    bz2_bomb,
    gzip_bomb,
    jpeg_claiming,
    mat_bomb,
    png,
    png_claiming,
    png_text_bomb,
    xz_bomb,
)
from tests.data.miniature.archives import tarred, write_miniature
from tests.data.miniature.photos import encoded, made, xml
from tests.data.pictures import images_of, write_archive


class Case(NamedTuple):
    """`make` writes it below a folder; `outcome` are parts of what has to come of it."""

    name: str
    make: Callable[[Path], object]
    outcome: tuple[str, ...]
    source: str = "archive"
    path: str = "pets.tar"


def cases() -> Iterator[Case]:
    yield from _archives()
    yield from _images()
    yield from _annotations()


def _archives() -> Iterator[Case]:
    for name, bomb in (("gz", gzip_bomb), ("xz", xz_bomb), ("bz2", bz2_bomb)):
        yield Case(
            f"{name} bomb",
            lambda folder, name=name, bomb=bomb: (folder / f"b.tar.{name}").write_bytes(bomb()),
            (f"refused: FOLDER/b.tar.{name}: ", "compressed bytes unpack to more than", "bomb"),
            path=f"b.tar.{name}",
        )
    for what, member, says in (
        ("traversal", _info("../../evil"), "points outside"),
        ("absolute name", _info("/etc/cron.d/evil"), "points outside"),
        ("symbolic link", _info("train/cat/x", tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
        ("hard link", _info("train/cat/x", tarfile.LNKTYPE, linkname="../x"), "a link"),
        ("device", _info("train/cat/x", tarfile.CHRTYPE), "device"),
        ("fifo", _info("train/cat/x", tarfile.FIFOTYPE), "device"),
        ("sparse file", _info("train/cat/x", tarfile.GNUTYPE_SPARSE), "sparse"),
        ("member twice", _info("train/cat/0000.jpg"), "comes twice"),
        ("line break in a name", _info("train/cat/a\nb.jpg"), "not printable"),
        ("name that is no UTF-8", _info("train/cat/a\udcff.jpg"), "not printable"),
    ):
        yield Case(
            what,
            lambda folder, member=member: _pets(folder, {member: b""}),
            ("refused: FOLDER/pets.tar: member ", repr(member.name), "at offset ", says),
        )
    for size in (-1, 1 << 40):
        header = _info("train/cat/x.jpg", size=size).tobuf(tarfile.GNU_FORMAT)
        yield Case(
            f"header that claims {size} bytes",
            lambda folder, h=header: (folder / "pets.tar").write_bytes(h + bytes(4096)),
            ("refused: FOLDER/pets.tar", f"at offset 0: claims {size} bytes"),
        )
    empty = {f"train/cat/{i}.jpg": b"" for i in range(1100)}
    yield Case(
        "crowd of empty members",
        lambda folder: _pets(folder, empty),
        ("refused: FOLDER/pets.tar: member 'train/cat/1000.jpg'", "empty file number 1001"),
    )
    yield Case(
        "wrong digest",
        lambda folder: (
            _pets(folder, {}),
            (folder / "SHA256SUMS").write_text(f"{'0' * 64}  pets.tar\n"),
        ),
        ("refused: FOLDER/pets.tar: has sha256", "SHA256SUMS says 000", "bytes"),
    )
    yield Case(
        "class in one split only",
        lambda folder: _pets(folder, {"train/emu/1.jpg": b"x"}),
        ("refused: FOLDER/pets.tar: the splits differ", "only in train/: emu"),
    )


def _info(name: str, type: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = type
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def _pets(folder: Path, more: Mapping[object, bytes]) -> None:
    write_archive(folder / "pets.tar", images_of() | more)


ODD = "train/cat/odd.JPEG"
LEFT_OUT = f"left out: FOLDER/pets.tar: {ODD} "


def _images() -> Iterator[Case]:
    """One odd image among good ones: decoded by the rule, or left out with a reason."""
    photo = made(5)
    red, green, blue = photo.getpixel((0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16))
    whole = encoded(Image.new("RGB", (200, 200), (9, 8, 7)), "JPEG")
    flat = Image.new("RGB", (8, 8), (200, 100, 50))
    for name, data, says in (
        ("empty file", b"", f"{LEFT_OUT}is empty: 0 bytes"),
        ("HTML", b"<html>404</html>", f"{LEFT_OUT}is no image of a known format"),
        ("half a JPEG", whole[: len(whole) // 2], f"{LEFT_OUT}cannot be decoded"),
        ("JPEG without end mark", whole[:-2], f"{LEFT_OUT}cannot be decoded"),
        ("JPEG bomb", jpeg_claiming(60_000, 60_000), f"{LEFT_OUT}has 60000x60000 = 36000"),
        ("JPEG that claims 49 megapixels", jpeg_claiming(7000, 7000), f"{LEFT_OUT}has 7000x7000"),
        ("PNG bomb", png_claiming(60_000, 60_000), f"{LEFT_OUT}has 60000x60000 = 36000"),
        ("PNG that claims 49 megapixels", png_claiming(7000, 7000), f"{LEFT_OUT}cannot"),
        ("bomb in a PNG's text", png_text_bomb(), f"{LEFT_OUT}cannot be decoded"),
        ("EPS, which is a program", b"%!PS-Adobe-3.0 EPSF-3.0\n", f"{LEFT_OUT}is no image"),
        ("pickle", b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.", f"{LEFT_OUT}is no image"),
        ("PNG in .JPEG", encoded(photo, "PNG"), f"decoded: {ODD} 16x20 ({red}, {green}, {blue})"),
        ("grey JPEG", encoded(Image.new("L", (8, 8), 90), "JPEG"), f"{ODD} 8x8 (90, 90, 90)"),
        ("CMYK JPEG", encoded(flat.convert("CMYK"), "JPEG"), f"{ODD} 8x8 (200, 100, 50)"),
        ("16-bit grey", encoded(deep.crop((2, 0, 3, 1)), "PNG"), f"{ODD} 1x1 (128, 128, 128)"),
        ("16-bit colour", png(np.array([[[257, 32768, 65535]]], ">u2")), "1x1 (1, 128, 255)"),
        ("transparent", encoded(Image.new("RGBA", (1, 1)), "PNG"), f"{ODD} 1x1 (255, 255, 255)"),
        ("turned by EXIF", encoded(Image.new("L", (24, 10)), "JPEG", exif=exif), f"{ODD} 10x24 "),
    ):  # fmt: skip
        yield Case(name, lambda folder, data=data: _pets(folder, {ODD: data}), (says,))


TRAIN, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz"
BOXES = "ILSVRC2012_bbox_val_v3.tgz"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
DOG = "n02085620_7.JPEG"
ONE = "ILSVRC2012_val_00000001"
WHERE = f"refused: FOLDER/{BOXES}: member 'val/{ONE}.xml'"


def _annotations() -> Iterator[Case]:
    """One hostile file in ILSVRC-2012's archive of boxes, or in its development kit."""
    good = xml(ONE, (20, 16), [("n02085620", (1, 2, 8, 9))])
    lol = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    for name, text, says in (
        ("billion laughs", f'<!DOCTYPE a [<!ENTITY l0 "lol">{lol}]>{good}', "document type"),
        ("quadratic blow-up", f'<!DOCTYPE a [<!ENTITY q "{"q" * 9999}">]>{good}', "document type"),
        ("external entity", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
         "document type"),
        ("external DTD", f'<!DOCTYPE a SYSTEM "http://localhost/x.dtd">{good}', "document type"),
        ("200,000 elements deep", "<annotation>" * 70_000, "line 1: is nested deeper than 32"),
        ("long XML", good + " " * (1 << 20), "bytes of XML: at most 1048576"),
        ("not XML", "<annotation><object></annotation>", "not well-formed XML: mismatched tag"),
        ("other root", "<html/>", "line 1: starts with <html>"),
        ("object without box", good.replace("ymax", "ymux"), "line 24: <object> of line 13 lacks"),
        ("edge that is no number", good.replace(">9<", ">nine<"), "<ymax> is 'nine'"),
        ("edge that is not finite", good.replace(">9<", ">inf<"), "<ymax> is 'inf'"),
        ("huge size", good.replace(">20<", ">1e300<"), "<size> is '1e300'"),
    ):  # fmt: skip
        change = {BOXES: _gzipped({f"val/{ONE}.xml": text.encode()})}
        make = lambda folder, change=change: _ilsvrc(folder, change)  # noqa: E731
        yield Case(name, make, (WHERE, says), "ilsvrc2012", ".")
    for name, change, parts in (
        ("member of 100 MB", lambda: {BOXES: _gzipped({f"val/{ONE}.xml": bytes(100_000_000)})},
         (f"{BOXES}", "claims 100000000 bytes")),
        ("bomb in meta.mat", lambda: {KIT: _gzipped({"data/meta.mat": mat_bomb(), TRUTH: b"1\n"})},
         (f"{KIT}: member data/meta.mat", "unpacks to more than")),
        ("pickle as meta.mat", lambda: {KIT: _gzipped({"data/meta.mat": b"\x80", TRUTH: b""})},
         (f"{KIT}: member data/meta.mat", "is no MATLAB level-5 file")),
        ("tars three deep", lambda: {TRAIN: tarred({f"{DOG[:9]}.tar": tarred({"x.tar": b""})})},
         (f"{TRAIN}: member 'n02085620.tar/x.tar'", "nested too deep")),
        ("999 classes missing", lambda: {TRAIN: tarred({"n02085620.tar": tarred({DOG: b"x"})})},
         (f"{TRAIN}: no images of n0", "and 994 more: 999 of 1000 classes are missing")),
    ):  # fmt: skip
        make = lambda folder, change=change: _ilsvrc(folder, change())  # noqa: E731
        parts = ("refused: FOLDER/", *parts)
        yield Case(name, make, parts, "ilsvrc2012", ".")


def _ilsvrc(folder: Path, change: Mapping[str, bytes]) -> None:
    """Links to the archives of one miniature for all cases, but for those that are changed."""
    whole = folder.parent / "ilsvrc"
    if not whole.exists():
        write_miniature(whole, num_train=1)
    for path in whole.iterdir():
        if path.name not in change:
            (folder / path.name).symlink_to(path)
    for name, data in change.items():
        (folder / name).write_bytes(data)


def _gzipped(files: Mapping[str, bytes]) -> bytes:
    return gzip.compress(tarred(files))
