"""Mini-batches: each sample once per epoch, the same bits whoever reads, VGG's arithmetic."""

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from data.augmentation import crop_region, draw
from data.config import InputConfig
from data.decode import decode_rgb
from data.manifest import read_manifest
from data.minibatches import TrainingReader
from data.staged_tar import open_tar
from data.staging import stage
from tests.data.pictures import crop_of, encoded, write_tree
from tests.data.staged import config_of

JITTER = {"side_min": 16, "side_max": 24, "crop_size": 16}


def reader(folder, seed=5, **changes):
    return TrainingReader(folder, InputConfig(**(JITTER | changes)), seed)


def epoch_of(reader, epoch, size=5):
    return [
        minibatch
        for tar, num_samples in enumerate(reader.tar_sizes)
        for minibatch in reader.minibatches(epoch, tar, 0, num_samples, size)
    ]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for (images, labels), (other_images, other_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_shapes_types_and_the_last_smaller_minibatch(pets):
    one = reader(pets)
    assert one.tar_sizes == (11, 12, 11, 12)
    sizes = []
    for images, labels in one.minibatches(0, 0, 0, 11, 4):
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.shape == (len(labels), 3, 16, 16)
        assert images.is_contiguous(memory_format=torch.channels_last)
        sizes.append(len(labels))
    assert sizes == [4, 4, 3]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """40 flat training images whose red is their number and whose class is its parity."""
    root = tmp_path_factory.mktemp("numbered")
    images = {
        f"{split}/{('even', 'odd')[i % 2]}/{i}.png": encoded(
            Image.new("RGB", (9, 9), (i, 0, 0)), "PNG"
        )
        for split in ("train", "test")
        for i in range(40)
    }
    return stage(config_of(write_tree(root / "tree", images), samples_per_tar=9), root).folder


def numbers(folder, minibatches):
    """The images' numbers; checks that each has its label."""
    red = read_manifest(folder).mean_rgb[0]
    found = []
    for images, labels in minibatches:
        found += [round(float(image[0].mean()) + red) for image in images]
        assert [number % 2 for number in found[-len(labels) :]] == labels.tolist()
    return found


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("epoch", [0, 7])
def test_each_sample_comes_exactly_once_per_epoch_with_its_label(numbered, epoch, size):
    one = reader(numbered, colour_shift_std=0.0)
    assert sorted(numbers(numbered, epoch_of(one, epoch, size))) == list(range(40))


@pytest.mark.parametrize("num_readers", [2, 3])
def test_each_sample_comes_exactly_once_when_readers_share_an_epoch(numbered, num_readers):
    readers = [reader(numbered, colour_shift_std=0.0) for _ in range(num_readers)]
    pieces = [
        (tar, start, min(start + 4, size))
        for tar, size in enumerate(readers[0].tar_sizes)
        for start in range(0, size, 4)
    ]
    found = []
    for turn, (tar, start, stop) in enumerate(pieces):
        one = readers[turn % num_readers]
        found += numbers(numbered, one.minibatches(1, tar, start, stop, 3))
    assert sorted(found) == list(range(40))


def test_images_equal_the_literal_computation_sample_by_sample(pets):
    one = reader(pets)
    manifest = read_manifest(pets)
    for tar, entry in enumerate(manifest.train):
        staged = open_tar(pets, entry)
        draws = draw(5, 2, tar, len(staged), InputConfig(**JITTER))
        ((images, labels),) = one.minibatches(2, tar, 0, len(staged), 100)
        with staged.path.open("rb") as file:
            for place, position in enumerate(draws.order):
                image = decode_rgb(staged.image(file, position), 10**6)
                side, corner = int(draws.sides[position]), draws.corners[position]
                region = crop_region((20, 16), 1.0, side, 16, corner)
                pixels = crop_of(image, region, 16)
                if draws.flips[position]:
                    pixels = np.fliplr(pixels)
                expected = pixels - np.array(manifest.mean_rgb) + draws.shifts[position]
                np.testing.assert_allclose(
                    images[place].numpy().transpose(1, 2, 0), expected, atol=1e-4
                )
                assert labels[place] == staged.labels[position]


@pytest.mark.parametrize(
    "changes",
    [{"decode_threads": 4}, {"cache_bytes": 0}, {"cache_bytes": 30_000}, {"prefetch": 9}],
    ids=str,
)
def test_threads_and_cache_change_no_bit(pets, changes):
    ours, theirs = reader(pets), reader(pets, **changes)
    for epoch in (0, 1, 0):
        assert_same(epoch_of(ours, epoch), epoch_of(theirs, epoch))


def test_the_cache_changes_no_bit_of_jpegs_decoded_at_reduced_scale(pets):
    small = {"side_min": 4, "side_max": 16, "crop_size": 4}
    kept, fresh = reader(pets, **small), reader(pets, **small, cache_bytes=0)
    for epoch in range(4):
        assert_same(epoch_of(kept, epoch), epoch_of(fresh, epoch))


def test_a_range_is_the_same_part_whoever_reads_it_in_whatever_pieces(pets):
    whole = torch.cat([images for images, _ in reader(pets).minibatches(1, 2, 0, 11, 3)])
    other = reader(pets)
    pieces = [
        images
        for start, stop in ((7, 11), (0, 2), (2, 7))
        for images, _ in other.minibatches(1, 2, start, stop, 2)
    ]
    starts = [7, 9, 0, 2, 4, 6]
    for start, piece in zip(starts, pieces, strict=True):
        assert torch.equal(piece, whole[start : start + len(piece)])


def test_each_epoch_and_each_seed_has_its_own_order_and_augmentation(pets):
    first = torch.cat([images for images, _ in epoch_of(reader(pets), 0)])
    assert not torch.equal(first, torch.cat([images for images, _ in epoch_of(reader(pets), 1)]))
    other_seed = reader(pets, seed=6)
    assert not torch.equal(first, torch.cat([images for images, _ in epoch_of(other_seed, 0)]))


def test_the_mean_is_subtracted(pets):
    exact = reader(pets, side_max=16, crop_size=16, flip=False, colour_shift_std=0.0)
    images = torch.cat([images for epoch in range(3) for images, _ in epoch_of(exact, epoch)])
    assert images.mean(dim=(0, 2, 3)).abs().max() < 5
    assert images.std() > 30  # the 0..255 scale


def test_a_minibatch_of_large_images_needs_the_memory_of_few(tmp_path):
    """PNGs are decoded whole, whatever the crop."""
    images = {
        f"{split}/{'ab'[i % 2]}/{i}.png": encoded(Image.new("RGB", (600, 600), (i, 0, 0)), "PNG")
        for split in ("train", "test")
        for i in range(12)
    }
    folder = stage(config_of(write_tree(tmp_path / "tree", images)), tmp_path).folder
    one = reader(folder, cache_bytes=0, colour_shift_std=0.0)
    tracemalloc.start()
    try:
        minibatches = epoch_of(one, 0, size=12)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * 600 * 600 * 3
    assert sorted(numbers(folder, minibatches)) == list(range(12))


def test_an_empty_range_gives_nothing(pets):
    assert list(reader(pets).minibatches(0, 0, 3, 3, 4)) == []


@pytest.mark.parametrize(("start", "stop", "size"), [(-1, 3, 1), (5, 4, 1), (0, 12, 1), (0, 4, 0)])
def test_a_range_outside_the_tar_is_refused_at_once(pets, start, stop, size):
    with pytest.raises(
        ValueError, match=f"places {start}..{stop} by {size} of tar 0, which has 11"
    ):
        reader(pets).minibatches(0, 0, start, stop, size)
