"""A trained network's features on another data set (Simonyan & Zisserman 2015, appendix B)."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data.manifest import read_manifest
from data.sources.source import Split
from data.test_images import TestReader
from evaluation.batches import Rgb
from evaluation.config import TransferConfig
from evaluation.features import deep_features, pixel_features
from evaluation.metrics import mean_class_recall
from evaluation.reading import blocks
from evaluation.svm import classify
from models.vgg import Vgg

DEEP, UNTRAINED, PIXELS = "", "untrained_", "pixels_"  # prefixes of the result's names


class _Split(NamedTuple):
    features: dict[str, Tensor]  # by prefix, (N, D)
    labels: Tensor  # (N,)


def transfer(
    model: Vgg, untrained: Vgg, folder: Path, source_mean: Rgb, config: TransferConfig
) -> dict[str, float]:
    """Classify another staged data set with a linear SVM on frozen features, and on two baselines.

    The baselines are the features of the same network before training, and raw pixels. Each of the
    three classifiers chooses its own cost on the same held-out part of the training images.

    Args:
        source_mean: mean RGB of the images the network was trained on, 0 to 255.

    Returns:
        accuracy, mean_class_recall, svm_cost, svm_converged (1 or 0) and dimensions, each also as
        untrained_* and pixels_*; num_train, num_test, num_classes.

    Raises:
        ValueError: when a split is empty, or when the network does not fit into a test scale.
    """
    networks = {DEEP: model, UNTRAINED: untrained}
    train = _describe(networks, folder, "train", source_mean, config)
    test = _describe(networks, folder, "test", source_mean, config)
    results: dict[str, float] = {
        "num_train": len(train.labels),
        "num_test": len(test.labels),
        "num_classes": len(read_manifest(folder).class_names),
    }
    for prefix in train.features:
        results |= _classified(prefix, train, test, config)
    return results


def _describe(
    networks: dict[str, Vgg], folder: Path, split: Split, mean: Rgb, config: TransferConfig
) -> _Split:
    parts: dict[str, list[Tensor]] = {prefix: [] for prefix in (*networks, PIXELS)}
    labels = []
    for images, of_block in blocks(TestReader(folder, split)):
        for prefix, network in networks.items():
            features = deep_features(
                network,
                images,
                mean,
                config.sides,
                config.batch_size,
                config.aggregation,
                config.layer,
                config.grid,
            )
            parts[prefix].append(features)
        parts[PIXELS].append(pixel_features(images, mean, networks[DEEP].input_size))
        labels.append(of_block)
    if not labels:
        raise ValueError(f"{folder} has no {split} images to transfer to")
    return _Split({prefix: torch.cat(rows) for prefix, rows in parts.items()}, torch.cat(labels))


def _classified(
    prefix: str, train: _Split, test: _Split, config: TransferConfig
) -> dict[str, float]:
    predicted, cost, converged = classify(
        train.features[prefix],
        train.labels,
        test.features[prefix],
        config.svm_costs,
        config.validation_fraction,
        config.seed,
    )
    return {
        f"{prefix}accuracy": (predicted == test.labels).double().mean().item(),
        f"{prefix}mean_class_recall": mean_class_recall(predicted, test.labels),
        f"{prefix}svm_cost": cost,
        f"{prefix}svm_converged": float(converged),
        f"{prefix}dimensions": train.features[prefix].shape[1],
    }
