"""Sums over the images of one tar, which its entry in the manifest tells."""

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from data.boxes import BoxCounts
from data.decode import RgbImage
from data.look import Look
from data.manifest import SIDE_EDGES, Quarantined


class Tally:
    """Counts as images come; pixels of those that were decoded."""

    def __init__(self) -> None:
        self.num_samples = 0
        self.num_pixels = 0  # of those decoded
        self.side_counts = [0] * (len(SIDE_EDGES) + 1)
        self.quarantined: list[Quarantined] = []
        self.box_counts = BoxCounts()
        self._rgb_sums: npt.NDArray[np.int64] = np.zeros(3, np.int64)

    def add(self, look: Look) -> None:
        self.num_samples += 1
        self.side_counts[bisect_right(SIDE_EDGES, min(look.width, look.height))] += 1
        if look.image is not None:
            self._add_pixels(look.image)

    def _add_pixels(self, image: RgbImage) -> None:
        height, width, _ = image.shape
        self.num_pixels += height * width
        # Rows first, in 32 bits: 20 times as fast as one sum over both axes in 64.
        columns = image.reshape(height, -1).sum(axis=0, dtype=np.uint32)
        self._rgb_sums += columns.reshape(width, 3).sum(axis=0, dtype=np.int64)

    def rgb_sums(self) -> tuple[int, int, int]:
        red, green, blue = self._rgb_sums.tolist()
        return red, green, blue
