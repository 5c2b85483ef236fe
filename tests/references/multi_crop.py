"""Multi-crop evaluation of section 3.2, one crop at a time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.views import rescale_smallest_side
from models.vgg import Vgg
from tests.references.dense import as_tensor


def crops(image: Tensor, size: int, per_side: int) -> list[Tensor]:
    """Cut a regular grid with its corners in the image's corners: per_side squared (3, s, s)."""
    _, height, width = image.shape
    cut = []
    for row in range(per_side):
        for column in range(per_side):
            top = round(row * (height - size) / (per_side - 1))
            left = round(column * (width - size) / (per_side - 1))
            cut.append(image[:, top : top + size, left : left + size])
    return cut


def multi_crop_posterior(
    model: Vgg, image: np.ndarray, mean_rgb: Sequence[float], sides: Sequence[int], per_side: int
) -> Tensor:
    """Average of the softmax posteriors of all crops and their mirrors at all scales: (K,)."""
    views = []
    for side in sides:
        rescaled = rescale_smallest_side(as_tensor(image, mean_rgb), side)
        for crop in crops(rescaled, model.input_size, per_side):
            views += [crop, crop.flip(2)]
    return sum(torch.softmax(model(view[None])[0], 0) for view in views) / len(views)
