"""Decoded images kept in memory up to a number of bytes."""

from collections.abc import Hashable
from threading import Lock
from typing import Final

from PIL import Image

BYTES_PER_PIXEL: Final = 4  # Pillow stores RGB so
BYTES_PER_IMAGE: Final = 1000  # measured, beside the pixels: counts for small images


class ImageCache:
    """Keeps what comes first and evicts nothing.

    An epoch reads every image once, in a cycle: there, least-recently-used eviction would throw
    each image out just before it is needed again, while this hits for the share that fits. Threads
    may share a cache.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._free_bytes = capacity_bytes
        self._images: dict[Hashable, Image.Image] = {}
        self._lock = Lock()

    def get(self, key: Hashable) -> Image.Image | None:
        return self._images.get(key)

    def offer(self, key: Hashable, image: Image.Image) -> None:
        """Keep the image if there is room."""
        num_bytes = BYTES_PER_IMAGE + image.width * image.height * BYTES_PER_PIXEL
        with self._lock:
            if key not in self._images and num_bytes <= self._free_bytes:
                self._images[key] = image
                self._free_bytes -= num_bytes
