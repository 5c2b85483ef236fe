"""The images of one split, whole and unaugmented, for evaluation and transfer."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from data.decode import RgbImage, decode_rgb
from data.manifest import read_manifest
from data.sources.source import Split
from data.staged_tar import opened_tar


class TestReader:
    """Iterates over (image (H, W, 3) RGB, label) in the order of the tars, the same every time."""

    __test__: ClassVar[bool] = False  # pytest takes any Test* class for a set of tests

    def __init__(self, folder: Path, split: Split = "test") -> None:
        self._folder = folder
        self._manifest = read_manifest(folder)
        self._entries = self._manifest.test if split == "test" else self._manifest.train

    def __len__(self) -> int:
        return sum(entry.num_samples for entry in self._entries)

    def __iter__(self) -> Iterator[tuple[RgbImage, int]]:
        """Raises DamagedTar before the first image of a tar that is not what the manifest says."""
        for entry in self._entries:
            with opened_tar(self._folder, entry) as (staged, file):
                for position, label in enumerate(staged.labels.tolist()):
                    data = staged.image(file, position)
                    yield decode_rgb(data, self._manifest.max_pixels), label
