"""Staged images in blocks that fit into memory."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor

from evaluation.batches import Image

MAX_BLOCK_BYTES: Final = 128_000_000  # uint8: enough ImageNet images to find equal shapes among


class Block(NamedTuple):
    """Consecutive labelled images."""

    images: list[Image]
    labels: Tensor  # (N,) int64


def blocks(
    samples: Iterable[tuple[Image, int]], max_bytes: int = MAX_BLOCK_BYTES
) -> Iterator[Block]:
    """Collect samples in their order until a block holds `max_bytes` of pixels or more."""
    images: list[Image] = []
    labels: list[int] = []
    num_bytes = 0
    for image, label in samples:
        images.append(image)
        labels.append(label)
        num_bytes += image.nbytes
        if num_bytes >= max_bytes:
            yield Block(images, torch.tensor(labels))
            images, labels, num_bytes = [], [], 0
    if images:
        yield Block(images, torch.tensor(labels))
