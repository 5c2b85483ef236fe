"""From staged tars to augmented training mini-batches."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from data.augmentation import Draws, draw, rescaled_crop
from data.config import InputConfig
from data.decode import FULL_SCALE, decode_rgb, smallest_scale
from data.image_cache import ImageCache
from data.manifest import read_manifest
from data.staged_tar import StagedTar, open_tar

ForEach = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]


class _OpenTar(NamedTuple):
    """A training tar being read in one epoch."""

    number: int
    staged: StagedTar
    file: IO[bytes]
    draws: Draws


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
            (N, 3, crop_size, crop_size), RGB minus the training set's mean, on the 0..255 scale;
            labels int64 (N,).

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
        staged = open_tar(self._folder, self._manifest.train[number])
        draws = draw(self._seed, epoch, number, len(staged), self._input)
        with staged.path.open("rb") as file, _for_each(self._input.decode_threads) as for_each:
            tar = _OpenTar(number, staged, file, draws)
            for start in starts:
                positions = draws.order[start : min(start + starts.step, stop)]
                images = self._images(tar, positions, for_each)
                yield images, torch.from_numpy(staged.labels[positions])

    def _images(self, tar: _OpenTar, positions: npt.NDArray[np.int64], for_each: ForEach) -> Tensor:
        crop_size = self._input.crop_size
        images = np.empty((len(positions), 3, crop_size, crop_size), np.float32)
        offsets = tar.draws.shifts[positions] - self._mean_rgb  # (N, 3)

        def fill(place: int) -> None:
            pixels = self._augmented(tar, int(positions[place]))
            np.add(pixels.transpose(2, 0, 1), offsets[place, :, None, None], out=images[place])

        for _ in for_each(fill, range(len(positions))):
            pass
        return torch.from_numpy(images)

    def _augmented(self, tar: _OpenTar, position: int) -> npt.NDArray[np.uint8]:
        """Rescale, crop and flip one image: (crop_size, crop_size, 3)."""
        width, height = tar.staged.sizes[position].tolist()
        side = int(tar.draws.sides[position])
        eighths = FULL_SCALE
        if tar.staged.is_jpeg[position]:
            eighths = smallest_scale(min(width, height), side)
        image = self._decoded(tar, position, eighths)
        is_whole = image.size == (width, height)  # some JPEGs are never scaled
        crop = rescaled_crop(
            image,
            1.0 if is_whole else eighths / FULL_SCALE,
            (width, height),
            side,
            self._input.crop_size,
            tar.draws.corners[position],
        )
        pixels = np.asarray(crop)
        return pixels[:, ::-1] if tar.draws.flips[position] else pixels

    def _decoded(self, tar: _OpenTar, position: int, eighths: int) -> Image.Image:
        key = (tar.number, position, eighths)  # with the scale, so the cache changes no result
        image = self._cache.get(key)
        if image is None:
            data = tar.staged.image(tar.file, position)
            image = Image.fromarray(decode_rgb(data, self._manifest.max_pixels, eighths))
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
