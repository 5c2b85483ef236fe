"""Transfer to another staged data set, with its two baselines."""

import shutil
from dataclasses import replace

import pytest
import torch

from data.manifest import read_manifest, write_manifest
from data.test_images import TestReader
from evaluation.config import TransferConfig
from evaluation.features import deep_features, pixel_features
from evaluation.svm import classify
from evaluation.transfer import transfer
from tests.references.errors import mean_class_recall
from tests.references.subjects import MEAN_RGB, tiny_vgg

CONFIG = TransferConfig(sides=(32, 40), svm_costs=(0.1, 1.0), aggregation="stack", seed=3)


@pytest.fixture(scope="module")
def results(digits):
    return transfer(tiny_vgg(5, seed=0), tiny_vgg(5, seed=1), digits, MEAN_RGB, CONFIG)


def literally(features, digits):
    """Both splits described at once and classified."""
    train, test = list(TestReader(digits, "train")), list(TestReader(digits, "test"))
    labels = torch.tensor([label for _, label in train])
    truth = [label for _, label in test]
    of_train, of_test = (features([image for image, _ in split]) for split in (train, test))
    result = classify(of_train, labels, of_test, CONFIG.svm_costs, 0.2, CONFIG.seed)
    hits = [p == t for p, t in zip(result.predicted.tolist(), truth, strict=True)]
    return {
        "accuracy": sum(hits) / len(hits),
        "mean_class_recall": mean_class_recall(result.predicted.tolist(), truth),
        "svm_cost": result.cost,
        "svm_converged": 1.0,
        "dimensions": of_train.shape[1],
    }


@pytest.mark.parametrize(("prefix", "seed"), [("", 0), ("untrained_", 1)])
def test_each_network_s_figures_come_from_its_own_features(digits, results, prefix, seed):
    model = tiny_vgg(5, seed=seed)
    expected = literally(
        lambda images: deep_features(model, images, MEAN_RGB, (32, 40), 64, "stack"), digits
    )
    for name, value in expected.items():
        assert results[prefix + name] == pytest.approx(value)


def test_the_pixels_figures_come_from_pixels(digits, results):
    expected = literally(lambda images: pixel_features(images, MEAN_RGB, 32), digits)
    for name, value in expected.items():
        assert results["pixels_" + name] == pytest.approx(value)
    assert results["pixels_accuracy"] > 0.7  # ten classes: chance is 0.1


def test_the_data_are_counted(results):
    counts = {"num_train": 300, "num_test": 60, "num_classes": 10}
    assert {name: results[name] for name in counts} == counts


def test_the_same_arguments_give_the_same_figures(digits, results):
    again = transfer(tiny_vgg(5, seed=0), tiny_vgg(5, seed=1), digits, MEAN_RGB, CONFIG)
    assert again == results


def test_a_split_without_images_is_refused_by_name(digits, tmp_path):
    folder = tmp_path / "staged"
    shutil.copytree(digits, folder)
    write_manifest(folder, replace(read_manifest(folder), train=()))
    with pytest.raises(ValueError, match="has no train images"):
        transfer(tiny_vgg(5), tiny_vgg(5), folder, MEAN_RGB, CONFIG)
