"""Images of many shapes in batches of one shape, and blocks of bounded size."""

import numpy as np
import pytest
import torch

from evaluation.batches import rescaled_batches
from evaluation.reading import blocks
from evaluation.views import rescale_smallest_side
from tests.references.dense import as_tensor
from tests.references.subjects import MEAN_RGB, noise_images

SHAPES = [(28, 28), (40, 30), (28, 28), (30, 40), (28, 28), (40, 30), (64, 20)]


def batches(images, max_pixels):
    return list(rescaled_batches(images, MEAN_RGB, 36, max_pixels, torch.device("cpu")))


@pytest.mark.parametrize("max_pixels", [1, 36 * 48 * 2, 10**6])
def test_every_image_comes_once_rescaled_and_minus_the_mean(max_pixels):
    images = noise_images(SHAPES)
    seen = {}
    for indices, batch in batches(images, max_pixels):
        seen |= dict(zip(indices, batch, strict=True))
    assert sorted(seen) == list(range(len(images)))
    for index, image in enumerate(images):
        expected = rescale_smallest_side(as_tensor(image, MEAN_RGB), 36)
        torch.testing.assert_close(seen[index], expected, atol=1e-3, rtol=1e-5)


def test_images_of_one_shape_share_a_batch_within_the_bound():
    sizes = [batch.shape for _, batch in batches(noise_images([(28, 28)] * 7), 3 * 36 * 36)]
    assert sizes == [(3, 3, 36, 36), (3, 3, 36, 36), (1, 3, 36, 36)]


def test_an_image_above_the_bound_comes_alone():
    assert [len(indices) for indices, _ in batches(noise_images([(28, 28)] * 2), 10)] == [1, 1]


def test_blocks_keep_the_order_and_close_once_they_hold_their_bytes():
    images = noise_images([(10, 10)] * 7)
    samples = [(image, label) for label, image in enumerate(images)]
    got = list(blocks(samples, max_bytes=2 * 300 + 1))
    assert [block.labels.tolist() for block in got] == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(block.labels.dtype == torch.int64 for block in got)
    flat = [image for block in got for image in block.images]
    assert all(np.array_equal(a, b) for a, b in zip(flat, images, strict=True))


def test_no_samples_give_no_block():
    assert list(blocks([])) == []
