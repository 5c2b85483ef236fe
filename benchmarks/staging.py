"""Megabytes per second from an archive of JPEGs to shuffled, hashed tars; original bytes kept.

    python -m benchmarks.staging [TAR of JPEGs]

Ours: listing the archive, planning, four worker processes, SHA-256 of every sample and every tar,
each tar synced to disk, the manifest; once with every image decoded (the default), once with
decode_all=false, as for an archive whose digest is known. Rivals, in turn with ours: `cp` of the
archive, which is done before a byte has reached the disk; `cp` with a `sync` of the copy, and with
the SHA-256 of it besides, which together is what staging leaves of a tar; webdataset's ShardWriter
in a plain loop over tarfile, which neither shuffles, hashes, checks nor syncs; and reading the
members with tarfile. The archive lies in the system's cache for all of them. Ratios of medians.
Then the peak memory of staging archives of one size and of four times that, and what the list of a
large archive's images takes.
"""

import hashlib
import io
import multiprocessing
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Final

import webdataset

from benchmarks._figures import Figure, state
from benchmarks._listed_images import bytes_of_listed_image
from benchmarks._photographs import photographs
from data.config import DataConfig, StagingConfig
from data.manifest import TarEntry
from data.plan import TarPlan
from data.staging import stage

NUM_PHOTOGRAPHS: Final = 500
NUM_SAMPLES: Final = 4000
SAMPLES_PER_TAR: Final = 500
NUM_CLASSES: Final = 50
# A program of its own: what the benchmark imports, webdataset and torch, would hide the rest.
STAGE_AND_MEASURE: Final = f"""
import sys
from pathlib import Path
from data.config import DataConfig, StagingConfig
from data.staging import stage

staging = StagingConfig(
    samples_per_tar={SAMPLES_PER_TAR}, decode_all=False, max_bad_fraction=0.01
)
config = DataConfig(name="photographs", source="archive", path=sys.argv[1], staging=staging)
stage(config, Path(sys.argv[2]))
status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory too
print(status.partition("VmHWM:")[2].split()[0])
"""
NUM_ROUNDS: Final = 5
NUM_WORKERS: Final = 4  # as in the demo: two replicas and two shards


def main() -> None:
    images = photographs(NUM_PHOTOGRAPHS)
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(NUM_WORKERS, mp_context=spawn) as pool,
    ):
        folder = Path(name)
        archive = _archive(folder / "images.tar", images, NUM_SAMPLES)

        def in_workers(
            work: Callable[[TarPlan], TarEntry], plans: Sequence[TarPlan]
        ) -> Iterable[TarEntry]:
            return pool.map(work, plans)

        work: dict[str, Callable[[Path], object]] = {
            "headers": lambda out: stage(_config(archive, False), out, in_workers),
            "decoded": lambda out: stage(_config(archive, True), out, in_workers),
            "cp": lambda out: _cp(archive, out),
            "cp and sync": lambda out: _cp_and_sync(archive, out),
            "cp, sync and SHA-256": lambda out: _cp_and_sync_and_hash(archive, out),
            "ShardWriter": lambda out: _shard_writer(archive, out),
            "tarfile": lambda _: sum(len(data) for _, data in _members(archive)),
        }
        speeds = _speeds(work, folder, archive.stat().st_size / 1e6)
        small, large = (
            _peak_mb(_archive(folder / "memory.tar", images, count))
            for count in (NUM_SAMPLES // 4, NUM_SAMPLES)
        )
    rivals = {  # the last two are shown for orientation, and to notice a loss
        ("headers", "cp"): 0.5,
        ("headers", "cp and sync"): 0.5,
        ("headers", "cp, sync and SHA-256"): 1.0,
        ("headers", "ShardWriter"): 2.0,
        ("headers", "tarfile"): 0.15,
        ("decoded", "cp"): 0.05,
    }
    figures = [
        Figure(
            name=f"{ours}_vs_{re.sub('[^a-z0-9]+', '_', rival.lower())}",
            unit=f"MB/s, {'every image decoded' if ours == 'decoded' else 'headers checked'}",
            ours=speeds[ours],
            rival=speeds[rival],
            rival_name=rival,
            goal=goal,
        )
        for (ours, rival), goal in rivals.items()
    ]
    memory = Figure(
        name="peak_memory",
        unit="MB, archive of four times the size",
        ours=large,
        rival=small,
        rival_name="archive of one size",
        goal=0.9,
        more_is_better=False,
    )
    listed, in_list = bytes_of_listed_image()
    image = Figure(
        name="listed_image",
        unit="bytes of memory, an image",
        ours=listed,
        rival=in_list,
        rival_name="list of tuples",
        goal=5.0,
        more_is_better=False,
    )
    state("staging", [*figures, memory, image])


def _archive(path: Path, images: Sequence[bytes], count: int) -> Path:
    """A folder-per-class archive of so many images, class after class, as archives are."""
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            split = "test" if number % 20 == 0 else "train"
            info = tarfile.TarInfo(f"{split}/{number * NUM_CLASSES // count:04d}/{number:06d}.jpg")
            data = images[number % len(images)]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _config(archive: Path, decode_all: bool) -> DataConfig:
    return DataConfig(
        name="photographs",
        source="archive",
        path=str(archive),
        staging=StagingConfig(
            samples_per_tar=SAMPLES_PER_TAR, decode_all=decode_all, max_bad_fraction=0.01
        ),
    )


def _cp(archive: Path, out: Path) -> None:
    subprocess.run(["cp", archive, out / "copy.tar"], check=True)


def _cp_and_sync(archive: Path, out: Path) -> None:
    _cp(archive, out)
    subprocess.run(["sync", out / "copy.tar"], check=True)


def _cp_and_sync_and_hash(archive: Path, out: Path) -> None:
    _cp_and_sync(archive, out)
    with (out / "copy.tar").open("rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()


def _shard_writer(archive: Path, out: Path) -> None:
    with (
        redirect_stdout(io.StringIO()),
        closing(webdataset.ShardWriter(f"{out}/%06d.tar", maxcount=SAMPLES_PER_TAR)) as sink,
    ):
        for name, data in _members(archive):
            label = int(name.split("/")[1])
            sink.write({"__key__": name[:-4].replace("/", "_"), "jpg": data, "cls": label})


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, file.read()


def _speeds(
    work: dict[str, Callable[[Path], object]], folder: Path, megabytes: float
) -> dict[str, float]:
    """Median MB/s of the archive's bytes; a first round warms the workers up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(NUM_ROUNDS + 1):
        for name, run in work.items():
            out = folder / "out"
            out.mkdir()
            start = time.perf_counter()
            run(out)
            times[name].append(time.perf_counter() - start)
            shutil.rmtree(out)
    return {name: megabytes / statistics.median(taken[1:]) for name, taken in times.items()}


def _peak_mb(archive: Path) -> float:
    """Peak memory of a process that does nothing but stage an archive."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as out:
        command = [sys.executable, "-c", STAGE_AND_MEASURE, str(archive), out]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout) / 1000


if __name__ == "__main__":
    main()
