"""Staging of an archive too large for the system to keep what a copy has not written yet.

`cp` of a few hundred megabytes is done before a byte has reached the disk. Of an archive of
ImageNet's size it is not: the system lets unwritten data be a share of the memory
(vm.dirty_ratio) and then makes the writer wait for the disk. Here the archive is twice that
share; ours, `cp` and webdataset's ShardWriter in a plain loop take turns.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks._figures import Figure
from benchmarks._staging_rivals import (
    InWorkers,
    against,
    cp,
    cp_and_sync,
    measured_speeds,
    shard_writer,
    staging_config,
    written_archive,
)
from data.staging import stage

NUM_ROUNDS: Final = 3
DIRTY_RATIO: Final = Path("/proc/sys/vm/dirty_ratio")


def large_archive(images: Sequence[bytes], in_workers: InWorkers) -> list[Figure]:
    """Staging against what users would do instead, at sizes that only the disk takes in."""
    num_bytes = _twice_what_may_be_unwritten()
    count = num_bytes * len(images) // sum(map(len, images))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _require_room(folder, num_bytes)
        archive = written_archive(folder / "images.tar", images, count)
        work: dict[str, Callable[[Path], object]] = {
            "headers": lambda out: stage(staging_config(archive, False), out, in_workers),
            "cp": lambda out: cp(archive, out),
            "cp and sync": lambda out: cp_and_sync(archive, out),
            "ShardWriter": lambda out: shard_writer(archive, out),
        }
        megabytes = archive.stat().st_size / 1e6
        speeds = measured_speeds(work, folder, megabytes, NUM_ROUNDS)
    goals = {
        ("headers", "cp"): 0.5,
        ("headers", "cp and sync"): 0.5,
        ("headers", "ShardWriter"): 2.0,
    }
    return against(speeds, goals, f"_of_{megabytes / 1000:.1f}_gb")


def _twice_what_may_be_unwritten() -> int:
    """Bytes."""
    share = int(DIRTY_RATIO.read_text()) / 100
    return round(2 * share * psutil.virtual_memory().available)


def _require_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 2.5 * num_bytes:
        raise SystemExit(
            f"{folder}: {free / 1e9:.1f} GB are free, {2.5 * num_bytes / 1e9:.1f} GB needed for "
            "the archive and a copy; set TMPDIR to a folder on a larger disk"
        )
