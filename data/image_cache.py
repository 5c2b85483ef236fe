"""Decoded images kept in memory up to a number of bytes."""

from collections.abc import Hashable
from threading import Lock
from typing import Final

from data.decode import RgbImage

BYTES_PER_IMAGE: Final = 400  # measured, beside the pixels: counts for small images


class ImageCache:
    """Keeps what comes first and evicts nothing.

    An epoch reads every image once, in a cycle: there, least-recently-used eviction would throw
    each image out just before it is needed again, while this hits for the share that fits. Threads
    may share a cache.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._free_bytes = capacity_bytes
        self._images: dict[Hashable, RgbImage] = {}
        self._lock = Lock()
        self.is_full = capacity_bytes == 0  # an image was refused: most others will be

    def get(self, key: Hashable) -> RgbImage | None:
        return self._images.get(key)

    def offer(self, key: Hashable, image: RgbImage) -> None:
        """Keep the image if there is room."""
        num_bytes = BYTES_PER_IMAGE + image.nbytes
        with self._lock:
            if key in self._images:
                return
            if num_bytes > self._free_bytes:
                self.is_full = True
                return
            self._images[key] = image
            self._free_bytes -= num_bytes
