"""A network applied to images at several test scales: no learning, no autograd, no silent NaN."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from evaluation.batches import Image, Rgb, rescaled_batches
from models.vgg import Vgg


def at_each_side(
    model: Vgg,
    images: Sequence[Image],
    mean_rgb: Rgb,
    sides: Sequence[int],
    batch_size: int,
    compute: Callable[[Tensor], Tensor],
    width: int,
) -> Tensor:
    """Apply `compute` to every image rescaled to every test scale Q, in evaluation mode.

    Args:
        batch_size: bounds a pass to the pixels of so many images of the network's input size.
        compute: from a batch (B, 3, H, W) to (B, width), on the network's device.

    Returns:
        (num_sides, N, width) float32 on the CPU, in the order of `sides` and `images`.

    Raises:
        ValueError: when a scale is below the network's input size.
        FloatingPointError: when a result is NaN or infinite.
    """
    if small := [side for side in sides if side < model.input_size]:
        raise ValueError(
            f"test sides {small} are below model.input_size={model.input_size}: "
            "the network does not fit into images of that size"
        )
    results = torch.empty(len(sides), len(images), width)
    max_pixels = batch_size * model.input_size**2
    with _evaluating(model) as device:
        for side, rows in zip(sides, results, strict=True):
            for batch in rescaled_batches(images, mean_rgb, side, max_pixels, device):
                rows[batch.indices] = compute(batch.images).cpu()
    if not torch.isfinite(results).all():
        raise FloatingPointError(
            "the network's output is not finite: the weights have diverged in training, "
            "or the file they come from holds NaN"
        )
    return results


@contextmanager
def _evaluating(model: Vgg) -> Iterator[torch.device]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)
