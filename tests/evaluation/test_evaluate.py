"""The evaluation of a staged data set against one view of one image at a time."""

import shutil
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
import torch

from data.manifest import read_manifest, write_manifest
from data.test_images import TestReader
from evaluation import evaluate as evaluation
from evaluation.config import EvaluationConfig
from evaluation.evaluate import evaluate
from evaluation.reading import blocks
from tests.references.dense import dense_posterior
from tests.references.errors import top_k_error
from tests.references.multi_crop import multi_crop_posterior
from tests.references.subjects import tiny_vgg

CONFIG = EvaluationConfig(single_side=40, multi_sides=(32, 40), crops_per_side=2, batch_size=16)


@pytest.fixture(scope="module")
def literal_errors(digits):
    """The four methods, computed image by image and view by view."""
    model, mean = tiny_vgg(10).eval(), read_manifest(digits).mean_rgb
    posteriors = {"single_scale": [], "multi_scale": [], "multi_crop": []}
    labels = []
    with torch.no_grad():
        for image, label in TestReader(digits):
            labels.append(label)
            posteriors["single_scale"].append(dense_posterior(model, image, mean, [40]))
            posteriors["multi_scale"].append(dense_posterior(model, image, mean, [32, 40]))
            crops = multi_crop_posterior(model, image, mean, [32, 40], per_side=2)
            posteriors["multi_crop"].append(crops)
    posteriors = {method: torch.stack(rows) for method, rows in posteriors.items()}
    both = (posteriors["multi_scale"] + posteriors["multi_crop"]) / 2
    posteriors["multi_crop_and_dense"] = both
    return {
        method: [top_k_error(rows.tolist(), labels, k) for k in (1, 5)]
        for method, rows in posteriors.items()
    }


@pytest.mark.parametrize("max_bytes", [10**9, 17 * 8 * 8 * 3])  # all at once; four blocks
def test_all_errors_are_those_of_the_literal_evaluation(
    digits, literal_errors, max_bytes, monkeypatch
):
    monkeypatch.setattr(evaluation, "blocks", partial(blocks, max_bytes=max_bytes))
    results = evaluate(tiny_vgg(10), digits, CONFIG)
    assert results.keys() == literal_errors.keys()
    for method, (top1_error, top5_error) in literal_errors.items():
        assert results[method]["top1_error"] == pytest.approx(top1_error)
        assert results[method]["top5_error"] == pytest.approx(top5_error)
        assert results[method]["num_images"] == 60


def test_each_view_is_computed_once_and_counts_for_every_method_that_uses_it(digits):
    ticks = count()
    results = evaluate(tiny_vgg(10), digits, CONFIG, clock=lambda: float(next(ticks)))
    seconds = {method: result["seconds"] for method, result in results.items()}
    # The clock is read before and after a view, so that each takes one tick of its own.
    assert seconds == {
        "single_scale": 1, "multi_scale": 2, "multi_crop": 2, "multi_crop_and_dense": 4
    }  # fmt: skip
    assert next(ticks) == 2 * 4  # dense and crops at 32 and 40; dense at 40 is also single_scale


def test_data_with_other_classes_than_the_network_are_refused(digits):
    with pytest.raises(ValueError, match="has 10 classes, the network 7"):
        evaluate(tiny_vgg(7), digits, CONFIG)


def test_a_data_set_without_test_images_is_refused(digits, tmp_path):
    folder = tmp_path / "staged"
    shutil.copytree(digits, folder)
    write_manifest(folder, replace(read_manifest(folder), test=()))
    with pytest.raises(ValueError, match="has no test images"):
        evaluate(tiny_vgg(10), folder, CONFIG)
