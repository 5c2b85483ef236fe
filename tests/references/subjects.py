"""Small networks and images on which the tests of evaluation look at the same thing."""

from collections.abc import Sequence

import numpy as np

from models.config import ModelConfig
from models.vgg import Vgg, build_vgg

MEAN_RGB = (120.0, 115.0, 100.0)


def tiny_vgg(num_classes: int = 7, input_size: int = 32, seed: int = 0) -> Vgg:
    """Net A with 4 to 32 channels; its posteriors on noise are far from uniform and from 0."""
    config = ModelConfig(
        name="A",
        num_classes=None,
        input_size=input_size,
        input_std=64.0,
        width_factor=1 / 16,
        head_widths=(12, 9),
        initialisation="he",
        seed=seed,
    )
    return build_vgg(config, num_classes)


def noise_images(shapes: Sequence[tuple[int, int]], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
