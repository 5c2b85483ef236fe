"""Images of any shape as float batches of one shape, a bounded number of pixels at a time."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.views import rescale_smallest_side

Image = NDArray[np.uint8]  # (H, W, 3), RGB
Rgb = tuple[float, float, float]  # 0 to 255


class Batch(NamedTuple):
    """Images of one shape, and where they stood in the sequence they come from."""

    indices: list[int]
    images: Tensor  # (B, 3, H, W), float32, mean subtracted


def rescaled_batches(
    images: Sequence[Image], mean_rgb: Rgb, side: int, max_pixels: int, device: torch.device
) -> Iterator[Batch]:
    """Rescale images to smallest side `side`, those of equal shape together.

    Every image comes exactly once, not in its order. A batch holds at most `max_pixels` after
    rescaling, or one image: the activations of a pass are bounded whatever the test scale.
    """
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        by_shape[image.shape].append(index)
    mean = torch.tensor(mean_rgb, device=device).view(1, 3, 1, 1)
    for (height, width, _), indices in by_shape.items():
        pixels = side * side * max(height, width) / min(height, width)
        step = max(1, int(max_pixels // pixels))
        for start in range(0, len(indices), step):
            chosen = indices[start : start + step]
            stacked = torch.from_numpy(np.stack([images[i] for i in chosen])).to(device)
            # Seen as (B, 3, H, W) the stack is channels_last, which the network wants.
            batch = stacked.permute(0, 3, 1, 2).float() - mean
            yield Batch(chosen, rescale_smallest_side(batch, side))
