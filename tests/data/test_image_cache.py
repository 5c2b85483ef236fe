"""The cache keeps what fits and never more."""

import numpy as np

from data.image_cache import BYTES_PER_IMAGE, ImageCache

IMAGE = np.zeros((10, 10, 3), np.uint8)
NUM_BYTES = BYTES_PER_IMAGE + 300


def test_images_are_kept_until_the_room_is_used_and_then_refused():
    cache = ImageCache(3 * NUM_BYTES)
    for key in range(5):
        cache.offer(key, IMAGE)
    assert [cache.get(key) is IMAGE for key in range(5)] == [True, True, True, False, False]


def test_an_image_offered_twice_takes_its_room_once():
    cache = ImageCache(2 * NUM_BYTES)
    for key in (0, 0, 0, 1):
        cache.offer(key, IMAGE)
    assert cache.get(1) is IMAGE


def test_a_small_image_still_fits_where_a_large_one_did_not():
    cache = ImageCache(NUM_BYTES)
    cache.offer("large", np.zeros((100, 100, 3), np.uint8))
    cache.offer("small", IMAGE)
    assert cache.get("large") is None
    assert cache.get("small") is IMAGE


def test_no_room_keeps_nothing():
    cache = ImageCache(0)
    cache.offer(0, IMAGE)
    assert cache.get(0) is None


def test_it_is_full_once_an_image_was_refused():
    cache = ImageCache(NUM_BYTES)
    cache.offer(0, IMAGE)
    assert not cache.is_full
    cache.offer(1, IMAGE)
    assert cache.is_full
    assert ImageCache(0).is_full
