"""Images made smaller while they are staged: less room on the disk, faster mini-batches."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.decode import Encoded, RgbImage
from data.look import Look


class Shrinking(NamedTuple):
    """How much smaller, and how well."""

    smallest_side: int  # pixels; images that have no more stay as they are
    jpeg_quality: int  # 1 to 100


def shrunk(data: Encoded, look: Look, how: Shrinking) -> tuple[Encoded, Look]:
    """Rescale an image, whole and antialiased, so that its smallest side is `how.smallest_side`.

    Comes back as an upright RGB JPEG without subsampled colours; the same bytes in, the same bytes
    out, wherever the same Pillow is installed. What is small enough keeps its original bytes.

    Args:
        look: what was found out about `data`, decoded.

    Returns:
        the bytes to stage, and what is to know about them; the pixels are those before encoding.
    """
    assert look.image is not None
    if min(look.width, look.height) <= how.smallest_side:
        return data, look
    scale = how.smallest_side / min(look.width, look.height)
    size = (round(look.width * scale), round(look.height * scale))
    image = Image.fromarray(look.image).resize(size, Image.Resampling.BICUBIC)
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=how.jpeg_quality, subsampling="4:4:4")
        pixels: RgbImage = np.asarray(image)
        return file.getvalue(), Look(*size, pixels)
