"""From staged tars to augmented training mini-batches."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.augmentation import Draws, Region, crop_region, cut_out, draw, rescale
from data.config import InputConfig
from data.decode import FULL_SCALE, RgbImage, decode_rgb, smallest_scale
from data.image_cache import ImageCache
from data.manifest import read_manifest
from data.painting import LANES, RGB, paint
from data.recycled_memory import RecycledMemory
from data.staged_tar import StagedTar, opened_tar

# Decoded parts that wait to be rescaled: enough images in a row for the caches, little memory.
KEPT_BYTES: Final = 2_000_000

ForEach = Callable[[Callable[[range], None], Iterable[range]], Iterable[None]]


class _OpenTar(NamedTuple):
    """A training tar being read in one epoch."""

    number: int
    staged: StagedTar
    file: IO[bytes]
    draws: Draws


class _Cut(NamedTuple):
    """Where a sample's crop lies in its image."""

    position: int
    eighths: int  # the scale to decode at
    region: Region


class _Part(NamedTuple):
    """What a crop shows, as decoded."""

    pixels: RgbImage
    step: float  # decoded pixels per pixel of the crop


class _Scratch(threading.local):
    """Room for one crop, in each thread its own: used again and again, it stays in the caches."""

    def __init__(self, size: int) -> None:
        crop = torch.empty((size, size, 3), dtype=torch.uint8)
        self.crop: RgbImage = crop.numpy()
        self.room = crop.permute(2, 0, 1)[None]  # the same, as the rescaling fills it


class _Canvas:
    """The mini-batch that is being filled."""

    def __init__(
        self,
        draws: Draws,
        positions: npt.NDArray[np.int64],
        mean_rgb: npt.NDArray[np.float32],
        size: int,
        memory: RecycledMemory,
    ) -> None:
        shape = (len(positions), size, size, RGB)
        pixels = memory.take(prod(shape)).view(shape)
        self.images = pixels.permute(0, 3, 1, 2)
        self._rows = pixels.flatten(1).numpy()
        self._flips = draws.flips[positions].tolist()
        self._offsets = np.tile(draws.shifts[positions] - mean_rgb, LANES)

    def paint(self, place: int, crop: RgbImage) -> None:
        """Put a crop where it belongs: flipped, shifted, less the mean."""
        paint(self._rows[place], crop, self._flips[place], self._offsets[place])


class TrainingReader:
    """Reads the training tars of one staged folder.

    (seed, epoch, sample) decides order and augmentation, so any reader of a range gives the same
    mini-batches to the last bit, whatever its threads, its cache and what it read before.
    """

    def __init__(self, folder: Path, input: InputConfig, seed: int) -> None:
        self._folder = folder
        self._manifest = read_manifest(folder)
        self._mean_rgb = np.array(self._manifest.mean_rgb, np.float32)
        self._input = input
        self._seed = seed
        self._cache = ImageCache(input.cache_bytes)
        self._scratch = _Scratch(input.crop_size)
        self._memory = RecycledMemory()

    @property
    def tar_sizes(self) -> tuple[int, ...]:
        """Samples of each training tar."""
        return tuple(entry.num_samples for entry in self._manifest.train)

    def minibatches(
        self, epoch: int, tar: int, start: int, stop: int, size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Read places start..stop of a tar's order in an epoch.

        Each epoch puts a tar's samples into another order; over all its places each sample comes
        once.

        Returns:
            mini-batches of `size`, the last one of what remains: images float32
            (N, 3, crop_size, crop_size), channels last in memory, RGB minus the training set's
            mean, on the 0..255 scale; labels int64 (N,).

        Raises:
            ValueError: the range is not inside the tar, or size is below 1.
            DamagedTar: on the first mini-batch, if the tar is not what the manifest says.
        """
        num_samples = self._manifest.train[tar].num_samples
        if not 0 <= start <= stop <= num_samples or size < 1:
            raise ValueError(
                f"places {start}..{stop} by {size} of tar {tar}, which has {num_samples} samples: "
                "expected 0 <= start <= stop <= samples and size >= 1"
            )
        return self._minibatches(epoch, tar, range(start, stop, size), stop)

    def _minibatches(
        self, epoch: int, number: int, starts: range, stop: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        num_threads = self._input.decode_threads
        with (
            opened_tar(self._folder, self._manifest.train[number]) as (staged, file),
            _for_each(num_threads) as for_each,
        ):
            draws = draw(self._seed, epoch, number, len(staged), self._input)
            tar = _OpenTar(number, staged, file, draws)
            for start in starts:
                positions = draws.order[start : min(start + starts.step, stop)]
                canvas = _Canvas(
                    draws, positions, self._mean_rgb, self._input.crop_size, self._memory
                )
                fill = partial(self._fill, canvas, tar, positions.tolist())
                shares = (range(i, len(positions), num_threads) for i in range(num_threads))
                for _ in for_each(fill, shares):
                    pass
                yield canvas.images, torch.from_numpy(staged.labels[positions])

    def _fill(self, canvas: _Canvas, tar: _OpenTar, positions: list[int], places: range) -> None:
        """Decode some images of a mini-batch, then rescale and paint these, and so on.

        A decoding leaves little else in the caches, neither data nor code, and what follows it is
        slow: so several are done one after another, as many as memory is given to.
        """
        parts: list[tuple[int, _Part]] = []
        num_bytes = 0
        for place in places:
            part = self._part(tar, self._cut(tar, positions[place]))
            parts.append((place, part))
            num_bytes += part.pixels.nbytes
            if num_bytes > KEPT_BYTES:
                self._paint(canvas, parts)
                num_bytes = 0
        self._paint(canvas, parts)

    def _paint(self, canvas: _Canvas, parts: list[tuple[int, _Part]]) -> None:
        for place, (pixels, step) in parts:
            rescale(pixels, step, self._scratch.room)
            canvas.paint(place, self._scratch.crop)
        parts.clear()

    def _cut(self, tar: _OpenTar, position: int) -> _Cut:
        width, height = tar.staged.sizes[position].tolist()
        side = int(tar.draws.sides[position])
        eighths = FULL_SCALE
        if tar.staged.is_jpeg[position]:
            eighths = smallest_scale(min(width, height), side)
        return _Cut(position, eighths, self._region(tar, position, eighths))

    def _part(self, tar: _OpenTar, cut: _Cut) -> _Part:
        position, eighths, region = cut
        image = self._decoded(tar, position, eighths, region.bottom)
        if eighths != FULL_SCALE and image.shape[1] == tar.staged.sizes[position, 0]:
            region = self._region(tar, position, FULL_SCALE)  # some JPEGs are never scaled
        return _Part(cut_out(image, region), region.step)

    def _region(self, tar: _OpenTar, position: int, eighths: int) -> Region:
        width, height = tar.staged.sizes[position].tolist()
        return crop_region(
            (width, height),
            eighths / FULL_SCALE,
            int(tar.draws.sides[position]),
            self._input.crop_size,
            tar.draws.corners[position],
        )

    def _decoded(self, tar: _OpenTar, position: int, eighths: int, num_rows: int) -> RgbImage:
        """The image, or at least so many rows of it from the top."""
        key = (tar.number, position, eighths)  # with the scale, so the cache changes no result
        image = self._cache.get(key)
        if image is None:
            data = tar.staged.image(tar.file, position)
            if self._cache.is_full:
                return decode_rgb(data, self._manifest.max_pixels, eighths, num_rows)
            image = decode_rgb(data, self._manifest.max_pixels, eighths)
            self._cache.offer(key, image)
        return image


@contextmanager
def _for_each(num_threads: int) -> Iterator[ForEach]:
    """A map over so many threads; with one, the caller's own."""
    if num_threads == 1:
        yield map
    else:
        with ThreadPoolExecutor(num_threads, "decode") as pool:
            yield pool.map
