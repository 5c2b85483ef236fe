"""What staging is measured with and against: an archive of photographs, copies, webdataset."""

import hashlib
import io
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import Final

import webdataset

from benchmarks._figures import Figure
from data.config import DataConfig, StagingConfig
from data.manifest import TarEntry
from data.plan import TarPlan

SAMPLES_PER_TAR: Final = 500
NUM_CLASSES: Final = 50
DIRECT_BYTES: Final = 1 << 21
NUM_WORKERS: Final = 4  # as in the demo: two replicas and two shards

InWorkers = Callable[[Callable[[TarPlan], TarEntry], Sequence[TarPlan]], Iterable[TarEntry]]


def written_archive(path: Path, images: Sequence[bytes], count: int) -> Path:
    """A folder-per-class archive of so many images, class after class, as archives are.

    No two have the same bytes: those are listed, and real archives hold few of them.
    """
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            split = "test" if number % 20 == 0 else "train"
            info = tarfile.TarInfo(f"{split}/{number * NUM_CLASSES // count:04d}/{number:06d}.jpg")
            data = images[number % len(images)] + b"%08d" % number  # behind the end mark
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def staging_config(archive: Path, decode_all: bool) -> DataConfig:
    return DataConfig(
        name="photographs",
        source="archive",
        path=str(archive),
        staging=StagingConfig(
            samples_per_tar=SAMPLES_PER_TAR, decode_all=decode_all, max_bad_fraction=0.01
        ),
    )


def cp(archive: Path, out: Path) -> None:
    subprocess.run(["cp", archive, out / "copy.tar"], check=True)


def cp_and_sync(archive: Path, out: Path) -> None:
    cp(archive, out)
    subprocess.run(["sync", out / "copy.tar"], check=True)


def cp_and_sync_and_hash(archive: Path, out: Path) -> None:
    cp_and_sync(archive, out)
    with (out / "copy.tar").open("rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()


def dd_direct(archive: Path, out: Path) -> None:
    """The archive in two halves at once, past the cache: what the disk itself takes in."""
    num_blocks = -(-archive.stat().st_size // DIRECT_BYTES)
    half = -(-num_blocks // 2)
    command = ["dd", f"if={archive}", f"bs={DIRECT_BYTES}", f"count={half}", "status=none"]
    command += ["oflag=direct", "conv=fdatasync"]
    halves = [
        subprocess.Popen([*command, f"skip={start}", f"of={out}/{start}.part"])
        for start in (0, half)
    ]
    if any(process.wait() for process in halves):
        raise OSError(f"dd could not write to {out} with oflag=direct")


def shard_writer(archive: Path, out: Path) -> None:
    with (
        redirect_stdout(io.StringIO()),
        closing(webdataset.ShardWriter(f"{out}/%06d.tar", maxcount=SAMPLES_PER_TAR)) as sink,
    ):
        for name, data in members(archive):
            label = int(name.split("/")[1])
            sink.write({"__key__": name[:-4].replace("/", "_"), "jpg": data, "cls": label})


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, file.read()


@contextmanager
def staging_workers() -> Iterator[InWorkers]:
    """Processes that make tars, as a flow's do; they end with the block."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(NUM_WORKERS, mp_context=spawn) as pool:
        yield lambda work, plans: pool.map(work, plans)


def measured_speeds(
    work: dict[str, Callable[[Path], object]], folder: Path, megabytes: float, num_rounds: int
) -> dict[str, float]:
    """Median MB/s of the archive's bytes; a first round warms the workers up.

    Each begins when the disk has all that the one before it wrote. Every other round goes the
    other way round: who follows a copy finds memory that a virtual machine has been given already.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(num_rounds + 1):
        for name, run in (list(work.items()), list(work.items())[::-1])[number % 2]:
            out = folder / "out"
            out.mkdir()
            os.sync()
            start = time.perf_counter()
            run(out)
            times[name].append(time.perf_counter() - start)
            shutil.rmtree(out)
    return {name: megabytes / statistics.median(taken[1:]) for name, taken in times.items()}


def against(
    speeds: dict[str, float], goals: dict[tuple[str, str], float], suffix: str = ""
) -> list[Figure]:
    """A figure for each pair of ours and rival."""
    return [
        Figure(
            name=f"{ours}_vs_{re.sub('[^a-z0-9]+', '_', rival.lower())}{suffix}",
            unit=f"MB/s, {'every image decoded' if ours == 'decoded' else 'headers checked'}",
            ours=speeds[ours],
            rival=speeds[rival],
            rival_name=rival,
            goal=goal,
        )
        for (ours, rival), goal in goals.items()
    ]
