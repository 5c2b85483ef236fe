"""Top-1 and top-5 errors of a network by the four methods of the VGG paper's section 4."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from data.manifest import read_manifest
from data.test_images import TestReader
from evaluation.batches import Image, Rgb
from evaluation.config import EvaluationConfig
from evaluation.metrics import outside_top_k
from evaluation.reading import blocks
from evaluation.scores import dense_posteriors, multi_crop_posteriors
from models.vgg import Vgg

TOP = (1, 5)


class View(NamedTuple):
    """One way to look at an image; a method averages the posteriors of its views."""

    kind: Literal["dense", "crops"]
    side: int  # Q, pixels


def evaluate(
    model: Vgg,
    folder: Path,
    config: EvaluationConfig,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Test a network on the staged test images of `folder`.

    Each view is computed once, whichever methods average it; `seconds` is what the method's views
    took, so that it is the method's price when run alone. Memory is bounded by a block of images.

    Returns:
        for each of single_scale, multi_scale, multi_crop and multi_crop_and_dense: top1_error and
        top5_error in [0, 1], num_images, seconds.

    Raises:
        ValueError: when the data have other classes than the network, or no test images.
    """
    manifest = read_manifest(folder)
    if len(manifest.class_names) != model.num_classes:
        raise ValueError(
            f"{folder} has {len(manifest.class_names)} classes, the network "
            f"{model.num_classes}: it was trained on other data"
        )
    methods = _methods(config)
    seconds: defaultdict[View, float] = defaultdict(float)
    num_wrong: Counter[tuple[str, int]] = Counter()
    num_images = 0
    for images, labels in blocks(TestReader(folder)):
        posteriors = {}
        for view in _distinct(methods):
            start = clock()
            posteriors[view] = _posteriors(model, images, manifest.mean_rgb, view, config)
            seconds[view] += clock() - start
        num_wrong.update(_count_wrong(methods, posteriors, labels))
        num_images += len(images)
    if num_images == 0:
        raise ValueError(f"{folder} has no test images")
    return {
        method: {
            **{f"top{k}_error": num_wrong[method, k] / num_images for k in TOP},
            "num_images": num_images,
            "seconds": sum(seconds[view] for view in views),
        }
        for method, views in methods.items()
    }


def _methods(config: EvaluationConfig) -> dict[str, tuple[View, ...]]:
    dense = tuple(View("dense", side) for side in config.multi_sides)
    crops = tuple(View("crops", side) for side in config.multi_sides)
    return {
        "single_scale": (View("dense", config.single_side),),
        "multi_scale": dense,
        "multi_crop": crops,
        "multi_crop_and_dense": dense + crops,  # as many of each: the average of the two methods
    }


def _distinct(methods: Mapping[str, tuple[View, ...]]) -> list[View]:
    return list(dict.fromkeys(view for views in methods.values() for view in views))


def _posteriors(
    model: Vgg, images: Sequence[Image], mean_rgb: Rgb, view: View, config: EvaluationConfig
) -> Tensor:
    sides, batch_size = [view.side], config.batch_size
    if view.kind == "dense":
        return dense_posteriors(model, images, mean_rgb, sides, batch_size)
    return multi_crop_posteriors(model, images, mean_rgb, sides, batch_size, config.crops_per_side)


def _count_wrong(
    methods: Mapping[str, tuple[View, ...]], posteriors: Mapping[View, Tensor], labels: Tensor
) -> dict[tuple[str, int], int]:
    counts = {}
    for method, views in methods.items():
        average = torch.stack([posteriors[view] for view in views]).mean(0)
        for k in TOP:
            counts[method, k] = int(outside_top_k(average, labels, k).sum())
    return counts
