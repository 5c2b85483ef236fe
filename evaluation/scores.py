"""Class posteriors of test images, dense and multi-crop (Simonyan & Zisserman 2015, 3.2)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evaluation.batches import Image, Rgb
from evaluation.inference import at_each_side
from evaluation.views import grid_positions
from models.vgg import Vgg


def dense_posteriors(
    model: Vgg, images: Sequence[Image], mean_rgb: Rgb, sides: Sequence[int], batch_size: int
) -> Tensor:
    """Posteriors of whole images, the fully connected layers acting as convolutions.

    At each scale the score map is averaged over positions, then softmax gives the posterior; the
    image's and its mirror's are averaged, then those of the scales. (That scores, not posteriors,
    are averaged over positions is the literal reading; the paper is not explicit.)

    Args:
        sides: test scales Q, pixels.
        batch_size: images of the network's input size per pass; larger ones count for more.

    Returns:
        (N, K) on the CPU, rows sum to 1.
    """

    def dense(batch: Tensor) -> Tensor:
        return _mirrored(batch, lambda view: model.score_map(view).mean((2, 3)).softmax(1))

    classes = model.num_classes
    return at_each_side(model, images, mean_rgb, sides, batch_size, dense, classes).mean(0)


def multi_crop_posteriors(
    model: Vgg,
    images: Sequence[Image],
    mean_rgb: Rgb,
    sides: Sequence[int],
    batch_size: int,
    crops_per_side: int,
) -> Tensor:
    """Posteriors averaged over a grid of crops and their mirrors, then over the test scales.

    Args and result are those of `dense_posteriors`; `crops_per_side` = 5 gives the paper's 50
    crops per scale.
    """

    def crops(batch: Tensor) -> Tensor:
        return _grid_average(model, batch, crops_per_side, batch_size)

    classes = model.num_classes
    return at_each_side(model, images, mean_rgb, sides, batch_size, crops, classes).mean(0)


def _grid_average(model: Vgg, batch: Tensor, crops_per_side: int, batch_size: int) -> Tensor:
    """Average posterior (B, K) over the grid's crops of rescaled images (B, 3, H, W)."""
    size = model.input_size
    height, width = batch.shape[-2:]
    grid = list(grid_positions(height, width, size, crops_per_side).items())
    total = batch.new_zeros(len(batch), model.num_classes)
    positions_per_pass = max(1, batch_size // len(batch))  # few images of one shape, many crops
    for start in range(0, len(grid), positions_per_pass):
        chosen = grid[start : start + positions_per_pass]
        crops = [batch[..., top : top + size, left : left + size] for (top, left), _ in chosen]
        posteriors = _mirrored(torch.cat(crops), lambda view: model(view).softmax(1))
        per_position = posteriors.view(len(chosen), len(batch), -1)
        for (_, count), rows in zip(chosen, per_position, strict=True):
            total += count * rows
    return total / crops_per_side**2


def _mirrored(batch: Tensor, posteriors: Callable[[Tensor], Tensor]) -> Tensor:
    return (posteriors(batch) + posteriors(batch.flip(-1))) / 2
