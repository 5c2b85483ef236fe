"""Image descriptors for a linear classifier (Simonyan & Zisserman 2015, appendix B)."""

from collections.abc import Sequence
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.batches import Image, Rgb, rescaled_batches
from evaluation.inference import at_each_side
from evaluation.views import centre_crop
from models.config import FeatureLayer
from models.vgg import Vgg

MAX_PIXEL_SIDE: Final = 64  # raw pixels at 224 would be 150,528 dimensions


def deep_features(
    model: Vgg,
    images: Sequence[Image],
    mean_rgb: Rgb,
    sides: Sequence[int],
    batch_size: int,
    aggregation: Literal["average", "stack"],
    layer: FeatureLayer = "fc7",
    grid: int = 1,
) -> Tensor:
    """Describe images by a layer of a network, applied densely at several scales.

    At each scale the layer's activations after the ReLU are averaged over the positions of each
    cell of a grid, and over image and mirror; the scales are averaged or stacked. The paper takes
    FC7 and one cell. The L2 norm is made 1 once, at the end: the
    paper leaves its place open, and so scales keep the weight that their activations give them.

    Args:
        mean_rgb: of the images the network was trained on.
        sides: test scales Q, pixels.

    Returns:
        (N, D) on the CPU, D the layer's width, times grid^2, times the number of scales if stacked.
    """

    def pooled(batch: Tensor) -> Tensor:
        maps = [model.feature_map(view, layer) for view in (batch, batch.flip(-1))]
        cells = [F.adaptive_avg_pool2d(each, grid).flatten(1) for each in maps]
        return (cells[0] + cells[1]) / 2

    width = model.feature_width(layer) * grid**2
    features = at_each_side(model, images, mean_rgb, sides, batch_size, pooled, width)
    aggregated = features.mean(0) if aggregation == "average" else torch.cat(list(features), 1)
    return F.normalize(aggregated)


def pixel_features(images: Sequence[Image], mean_rgb: Rgb, input_size: int) -> Tensor:
    """Describe images by their pixels: what a network's features have to beat.

    The smallest side becomes the network's input size (64 pixels at most), the centre is cut out,
    the mean subtracted, and the L2 norm made 1.

    Returns:
        (N, 3 * side * side)
    """
    side = min(input_size, MAX_PIXEL_SIDE)
    features = torch.empty(len(images), 3 * side * side)
    for batch in rescaled_batches(images, mean_rgb, side, 10**7, torch.device("cpu")):
        features[batch.indices] = centre_crop(batch.images, side).flatten(1)
    return F.normalize(features)
