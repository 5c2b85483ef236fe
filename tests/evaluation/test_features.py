"""Descriptors of appendix B against one view at a time."""

import pytest
import torch

from evaluation.features import MAX_PIXEL_SIDE, deep_features, pixel_features
from evaluation.views import rescale_smallest_side
from tests.references.dense import as_tensor
from tests.references.subjects import MEAN_RGB, noise_images, tiny_vgg

SHAPES = [(28, 28), (45, 70), (28, 28)]


def pooled(model, image, side):
    """FC7 averaged over positions and over image and mirror, position by position: (9,)."""
    rescaled = rescale_smallest_side(as_tensor(image, MEAN_RGB), side)
    views = []
    for view in (rescaled, rescaled.flip(2)):
        maps = model.penultimate_map(view[None])[0]
        cells = [maps[:, y, x] for y in range(maps.shape[1]) for x in range(maps.shape[2])]
        views.append(sum(cells) / len(cells))
    return sum(views) / 2


@pytest.mark.parametrize("aggregation", ["average", "stack"])
def test_scales_are_averaged_or_stacked_and_then_the_norm_made_one(aggregation):
    model, images, sides = tiny_vgg().eval(), noise_images(SHAPES), (32, 40, 70)
    got = deep_features(model, images, MEAN_RGB, sides, 8, aggregation)
    for image, feature in zip(images, got, strict=True):
        with torch.no_grad():
            scales = [pooled(model, image, side) for side in sides]
        whole = torch.cat(scales) if aggregation == "stack" else sum(scales) / 3
        torch.testing.assert_close(feature, whole / whole.norm(), atol=1e-5, rtol=1e-4)


def test_stacking_three_scales_triples_the_dimensions():
    images = noise_images(SHAPES)
    assert deep_features(tiny_vgg(), images, MEAN_RGB, (32, 40, 70), 8, "stack").shape == (3, 27)
    assert deep_features(tiny_vgg(), images, MEAN_RGB, (32, 40, 70), 8, "average").shape == (3, 9)


def test_pixels_are_those_of_the_central_square_with_norm_one():
    (image,) = noise_images([(32, 48)])
    square = as_tensor(image[:, 8:40], MEAN_RGB).flatten()
    torch.testing.assert_close(
        pixel_features([image], MEAN_RGB, 32)[0], square / square.norm(), atol=1e-6, rtol=1e-4
    )


def test_pixels_of_a_large_network_are_capped():
    assert pixel_features(noise_images(SHAPES), MEAN_RGB, 224).shape == (3, 3 * MAX_PIXEL_SIDE**2)


@pytest.mark.parametrize(("layer", "cells"), [("pool3", 4), ("pool4", 2), ("pool5", 1)])
def test_features_of_a_pooling_are_averaged_cell_by_cell(layer, cells):
    model, images = tiny_vgg().eval(), noise_images([(32, 32)])
    got = deep_features(model, images, MEAN_RGB, (32,), 8, "stack", layer, grid=cells)
    view = as_tensor(images[0], MEAN_RGB)[None]
    with torch.no_grad():
        maps = [model.feature_map(v, layer) for v in (view, view.flip(3))]
    assert maps[0].shape == (1, model.feature_width(layer), cells, cells)
    whole = ((maps[0] + maps[1]) / 2).flatten()
    torch.testing.assert_close(got[0], whole / whole.norm(), atol=1e-6, rtol=1e-4)


def test_the_last_pooling_is_all_that_the_head_sees():
    model = tiny_vgg().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = model.feature_map(images, "pool5")
        torch.testing.assert_close(model.classifier(maps.flatten(1)), model(images))
