"""One hostile case in a process of its own: what was said, memory and time it took."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from data.config import DataConfig
from data.decode import UndecodableImage, decode_rgb
from data.sources.registry import open_source
from data.sources.source import SourceError, SourceSample
from tests.data.hostile.cases import Case

MAX_BYTES, MAX_CPU_S = 2 << 30, 20  # what saves the machine when a defence fails


class Result(NamedTuple):
    outcome: str
    peak_mb: float  # resident, of the whole process
    seconds: float


def tried(case: Case, folder: Path) -> Result:
    """Make the case below `folder` and read it as staging does, in forked children."""
    folder.mkdir()
    _in_child(lambda: str(case.make(folder)))
    start = time.perf_counter()
    outcome, peak_mb = _in_child(lambda: "\n".join(_read(case, folder)))
    return Result(outcome.replace(str(folder), "FOLDER"), peak_mb, time.perf_counter() - start)


def _read(case: Case, folder: Path) -> Iterator[str]:
    """What became of the source, or of each of its images that is not plain."""
    config = DataConfig(
        name="hostile",
        source=case.source,
        path=str(folder / case.path),
        check_digests=case.source == "archive",
    )
    work = folder / "work"
    work.mkdir()
    try:
        source = open_source(config, work)
    except SourceError as error:
        yield f"refused: {error}"
        return
    for sample in source.samples("train"):
        if "odd" in sample.name:
            yield _decoded(sample, config.staging.max_pixels)


def _decoded(sample: SourceSample, max_pixels: int) -> str:
    try:
        image = decode_rgb(sample.location.read(), max_pixels)
    except UndecodableImage as error:
        return f"left out: {sample.archive}: {sample.name} {error}"
    height, width, _ = image.shape
    return f"decoded: {sample.name} {width}x{height} {tuple(image[0, 0].tolist())}"


def _in_child(work: Callable[[], str]) -> tuple[str, float]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
            os.close(read)
            with open(write, "w") as pipe:
                pipe.write(work())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        text += f"\ndied: {status}"
    return text, usage.ru_maxrss / 1024
