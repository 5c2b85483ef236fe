"""Simonyan & Zisserman 2015, section 3.2, one window, one view and one image at a time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.views import rescale_smallest_side
from models.vgg import Vgg


def score_map(model: Vgg, images: Tensor) -> Tensor:
    """Apply the fully connected layers to every window of the feature maps: (N, K, h, w)."""
    maps = model.features(images / model.input_std)
    side = model.input_size // 32
    rows = []
    for top in range(maps.shape[2] - side + 1):
        cells = []
        for left in range(maps.shape[3] - side + 1):
            window = maps[:, :, top : top + side, left : left + side]
            cells.append(model.classifier(window.flatten(1)))
        rows.append(torch.stack(cells, dim=-1))
    return torch.stack(rows, dim=-2)


def as_tensor(image: np.ndarray, mean_rgb: Sequence[float]) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float, mean subtracted."""
    planes = [torch.tensor(image[:, :, c] - float(mean_rgb[c])) for c in range(3)]
    return torch.stack(planes).float()


def dense_posterior(
    model: Vgg, image: np.ndarray, mean_rgb: Sequence[float], sides: Sequence[int]
) -> Tensor:
    """Average of the softmax posteriors of image and mirror over the scales: (K,)."""
    posteriors = []
    for side in sides:
        rescaled = rescale_smallest_side(as_tensor(image, mean_rgb), side)
        for view in (rescaled, rescaled.flip(2)):
            scores = score_map(model, view[None])[0]
            averaged = torch.stack([k.mean() for k in scores])
            posteriors.append(torch.softmax(averaged, 0))
    return sum(posteriors) / len(posteriors)
