"""The cache keeps what fits and never more."""

from PIL import Image

from data.image_cache import BYTES_PER_IMAGE, ImageCache

IMAGE = Image.new("RGB", (10, 10))
NUM_BYTES = BYTES_PER_IMAGE + 400


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
    cache.offer("large", Image.new("RGB", (100, 100)))
    cache.offer("small", IMAGE)
    assert cache.get("large") is None
    assert cache.get("small") is IMAGE


def test_no_room_keeps_nothing():
    cache = ImageCache(0)
    cache.offer(0, IMAGE)
    assert cache.get(0) is None
