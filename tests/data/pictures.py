"""Small real images and trees of them, for the tests of this room."""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.augmentation import cut_out, rescale


def picture(seed, width=20, height=16):
    """A smooth random RGB image: JPEG keeps it nearly as it is."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def crop_of(image, region, crop_size):
    """What the region becomes: (crop_size, crop_size, 3)."""
    crop = torch.empty((crop_size, crop_size, 3), dtype=torch.uint8)
    rescale(cut_out(image, region), region.step, crop.permute(2, 0, 1)[None])
    return crop.numpy()


def encoded(image, kind="JPEG", **options):
    with io.BytesIO() as file:
        image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}), **options)
        return file.getvalue()


def images_of(classes=("cat", "dog"), num_train=10, num_test=3, kind="JPEG"):
    """Relative name → bytes of a tree train/CLASS/NNNN.EXT, test/CLASS/NNNN.EXT; all differ."""
    extension = {"JPEG": "jpg", "PNG": "png"}[kind]
    names = [
        f"{split}/{name}/{index:04d}.{extension}"
        for split, count in (("train", num_train), ("test", num_test))
        for name in classes
        for index in range(count)
    ]
    return {name: encoded(picture(seed), kind) for seed, name in enumerate(names)}


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_archive(path: Path, files, mode="w", wrap=""):
    """A tar of (name → bytes, or a ready TarInfo → bytes)."""
    with tarfile.open(path, mode) as tar:
        for member, data in files.items():
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(wrap + member)
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder: relative name → bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
