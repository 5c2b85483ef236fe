"""Megabytes per second from an archive of JPEGs to shuffled, hashed tars; original bytes kept.

    python -m benchmarks.staging [TAR of JPEGs] [large] [small] [memory]

    large   an archive that, as ImageNet's, only the disk takes in: twice what may be unwritten
    small   one of 4,000 photographs, 440 MB, which the system's cache takes in
    memory  the peak of archives of one size and of four times that; of a large list of images

Ours: listing the archive, planning, four worker processes, SHA-256 of every sample and every tar,
each tar synced to disk, the manifest; with decode_all=false, as for an archive whose digest is
known, and of the small one with every image decoded (the default) too. Rivals, in turn with ours:
`cp` of the archive; `cp` with a `sync` of the copy, and with the SHA-256 of it besides, which
together is what staging leaves of a tar; webdataset's ShardWriter in a plain loop over tarfile,
which neither shuffles, hashes, checks nor syncs; reading the members with tarfile. The small
archive lies in the system's cache for all of them. `cp` of it is done before a byte has reached the
disk, so two `dd` of a half each that write past the cache stand beside it: the disk's own speed,
and the bound of whoever leaves his copy on it. Ratios of medians.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks._figures import Figure, state
from benchmarks._listed_images import bytes_of_listed_image
from benchmarks._photographs import photographs
from benchmarks._staging_large import large_archive
from benchmarks._staging_rivals import (
    SAMPLES_PER_TAR,
    InWorkers,
    against,
    cp,
    cp_and_sync,
    cp_and_sync_and_hash,
    dd_direct,
    measured_speeds,
    members,
    shard_writer,
    staging_config,
    staging_workers,
    written_archive,
)
from data.staging import stage

NUM_PHOTOGRAPHS: Final = 500
NUM_SAMPLES: Final = 4000
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


def main() -> None:
    images = photographs(NUM_PHOTOGRAPHS, PARTS)
    parts = [part for part in PARTS if part in sys.argv[1:]] or PARTS
    with staging_workers() as in_workers:
        figures = [figure for part in parts for figure in PARTS[part](images, in_workers)]
    state("staging", figures)


def small_archive(images: Sequence[bytes], in_workers: InWorkers) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = written_archive(folder / "images.tar", images, NUM_SAMPLES)
        work: dict[str, Callable[[Path], object]] = {
            "headers": lambda out: stage(staging_config(archive, False), out, in_workers),
            "decoded": lambda out: stage(staging_config(archive, True), out, in_workers),
            "cp": lambda out: cp(archive, out),
            "dd past the cache": lambda out: dd_direct(archive, out),
            "cp and sync": lambda out: cp_and_sync(archive, out),
            "cp, sync and SHA-256": lambda out: cp_and_sync_and_hash(archive, out),
            "ShardWriter": lambda out: shard_writer(archive, out),
            "tarfile": lambda _: sum(len(data) for _, data in members(archive)),
        }
        speeds = measured_speeds(work, folder, archive.stat().st_size / 1e6, NUM_ROUNDS)
    goals = {  # the last two are shown for orientation, and to notice a loss
        ("headers", "cp"): 0.5,
        ("headers", "dd past the cache"): 0.6,
        ("headers", "cp and sync"): 0.5,
        ("headers", "cp, sync and SHA-256"): 1.0,
        ("headers", "ShardWriter"): 2.0,
        ("headers", "tarfile"): 0.15,
        ("decoded", "cp"): 0.05,
    }
    return against(speeds, goals)


def memory(images: Sequence[bytes], _: InWorkers) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        small, large = (
            _peak_mb(written_archive(Path(name) / "memory.tar", images, count))
            for count in (NUM_SAMPLES // 4, NUM_SAMPLES)
        )
    peak = Figure(
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
    return [peak, image]


def _peak_mb(archive: Path) -> float:
    """Peak memory of a process that does nothing but stage an archive."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as out:
        command = [sys.executable, "-c", STAGE_AND_MEASURE, str(archive), out]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout) / 1000


PARTS: Final = {"large": large_archive, "small": small_archive, "memory": memory}

if __name__ == "__main__":
    main()
