"""Views of an image at test time: rescaled, cropped on a grid (Simonyan & Zisserman 2015, 3.2)."""

from collections import Counter
from itertools import product

import torch.nn.functional as F
from torch import Tensor


def rescale_smallest_side(images: Tensor, size: int) -> Tensor:
    """Rescale isotropically so that the smallest side is `size` pixels: Q of section 3.2.

    Args:
        images: (3, H, W) or a batch of one shape, (N, 3, H, W), float.
        size: target length of min(H, W), pixels.

    Returns:
        the same with (H', W'), min(H', W') == size; the longer side is rounded to the nearest
        pixel. Bilinear, antialiased when shrinking; the paper does not name a method.
    """
    height, width = images.shape[-2:]
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    if images.ndim == 3:
        return rescale_smallest_side(images[None], size)[0]
    return F.interpolate(images, target, mode="bilinear", antialias=True)


def grid_positions(
    height: int, width: int, crop_size: int, crops_per_side: int
) -> Counter[tuple[int, int]]:
    """Upper left corners of a regular grid of crops, each with how often the grid names it.

    The offsets along an axis are evenly spaced from 0 to side - crop_size and rounded; a single
    one is centred. The paper does not place its 5x5 grid. On an image hardly larger than the crop
    positions coincide: they need computing once.

    Returns:
        (top, left) in pixels; the counts sum to crops_per_side squared.

    Raises:
        ValueError: when the crop does not fit.
    """
    if min(height, width) < crop_size:
        raise ValueError(f"a crop of {crop_size} pixels does not fit into {height}x{width}")
    tops = _offsets(height - crop_size, crops_per_side)
    lefts = _offsets(width - crop_size, crops_per_side)
    return Counter(product(tops, lefts))


def centre_crop(images: Tensor, crop_size: int) -> Tensor:
    """Cut the central square out of images (..., H, W)."""
    height, width = images.shape[-2:]
    ((top, left),) = grid_positions(height, width, crop_size, crops_per_side=1)
    return images[..., top : top + crop_size, left : left + crop_size]


def _offsets(room: int, num: int) -> list[int]:
    if num == 1:
        return [room // 2]
    return [round(i * room / (num - 1)) for i in range(num)]
