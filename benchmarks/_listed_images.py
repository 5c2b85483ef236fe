"""Memory for a list of images as long as ImageNet-21k's names and archive make them."""

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from data.config import StagingConfig
from data.listing import make_listing
from data.plan import plan_tars
from data.sources.source import ByteRange, ListedSource, SourceSample
from data.sources.table import SampleTable

NUM_IMAGES: Final = 200_000  # each of 14 million takes as much
IMAGES_OF_A_CLASS: Final = 650
ARCHIVE: Final = "/archives/winter21_whole.tar"
SAMPLES_PER_TAR: Final = 1000


def bytes_of_listed_image() -> tuple[float, float]:
    """Peak bytes for an image: listing and planning as staging does, and a plain list of them."""
    return _peak(_staged) / NUM_IMAGES, _peak(lambda: list(_images())) / NUM_IMAGES


def _staged() -> object:
    class_names = tuple(str(label) for label in range(NUM_IMAGES // IMAGES_OF_A_CLASS + 1))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = ListedSource(class_names, SampleTable.of(_images(), work), [])
        listing = make_listing(work, "", source, 0, {"train": None, "test": None})
        return plan_tars(listing, StagingConfig(samples_per_tar=SAMPLES_PER_TAR), work, work)


def _images() -> Iterator[SourceSample]:
    for number in range(NUM_IMAGES):
        label = number // IMAGES_OF_A_CLASS
        location = ByteRange(ARCHIVE, 512 + number * 110_592, 110_000 + number % 500)
        yield SourceSample(f"n{label:08d}_{number}.JPEG", label, location, ARCHIVE)


def _peak(work: Callable[[], object]) -> int:
    """What Python and numpy ask for; mapped files are the system's to keep or to drop."""
    tracemalloc.start()
    try:
        kept = work()  # until it was measured
        peak = tracemalloc.get_traced_memory()[1]
        del kept
        return peak
    finally:
        tracemalloc.stop()
