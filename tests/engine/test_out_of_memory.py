"""A process that the kernel kills for want of memory is lost like any other, and the run says why.

A real limit, a real kill: a cgroup is made for it, which takes root.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.hungry import SETTINGS
from tests.engine.problems import NUM_SAMPLES
from tests.engine.rows import Row, in_file
from tests.engine.test_dask_train import MINIBATCHES_PER_EPOCH
from tests.engine.threaded import latest

pytestmark = [
    pytest.mark.dask,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a cgroup"),
]
LIMIT = 3 << 30  # bytes; the five processes need about a third of it


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with LIMIT bytes of memory, in either version's tree."""
    root = Path("/sys/fs/cgroup")
    v1 = (root / "memory").is_dir()
    folder = (root / "memory" if v1 else root) / f"verydeep-{os.getpid()}"
    folder.mkdir()
    (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(LIMIT))
    yield folder
    deadline = time.monotonic() + 5
    while (folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)  # the fork server ends when it notices that its parent has
    folder.rmdir()


def of(rows: list[Row], event: str) -> list[Row]:
    return [row for row in rows if row["event"] == event]


def test_a_replica_killed_for_want_of_memory_is_replaced_and_the_cause_is_named(
    tmp_path: Path, cgroup: Path
) -> None:
    command = [sys.executable, "-m", "tests.engine.hungry", str(tmp_path), str(cgroup)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=120)
    rows = in_file(tmp_path)
    (lost,) = of(rows, "replica_lost")
    (ended,) = of(rows, "process_ended")
    assert (ended["role"], ended["index"], ended["pid"]) == (
        "replica",
        lost["replica"],
        lost["pid"],
    )
    assert ended["how"] == "was killed by signal 9 (SIGKILL), cgroup oom_kill=1: out of memory"
    end = latest(tmp_path)
    assert end.num_counted == SETTINGS.num_epochs * NUM_SAMPLES
    # The push that it had begun may have reached a shard, and then its samples count.
    expected = SETTINGS.num_epochs * MINIBATCHES_PER_EPOCH
    assert all(expected - 1 <= shard.version <= expected for shard in end.shards)
