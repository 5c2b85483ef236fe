"""Everything killed with kill -9, and its memory gone as after a loss of power."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from engine import checkpoint, memory_folder, salvage
from engine.dask_train import train_downpour
from engine.journal import read_terms
from engine.log_file import read_files
from engine.push_log import PushLog
from engine.run_spec import log_folder
from engine.segment import gradient_at
from engine.shard import ParameterShard
from tasks.cluster import open_cluster
from tests.engine import doomed
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES
from tests.engine.rows import Listener, in_file
from tests.engine.shards import Contents
from tests.engine.test_dask_train import wait_until_gone
from tests.engine.threaded import latest
from tests.kills import was_killed

pytestmark = pytest.mark.dask
CONFIG = doomed.POWER


def test_nothing_acknowledged_is_lost_and_the_log_has_the_bits_that_memory_had(tmp_path):
    root = tmp_path / "memory"
    root.mkdir()
    command = [sys.executable, "-m", "tests.engine.doomed", str(tmp_path), "power", str(root)]
    killed, witness = subprocess.Popen(command, cwd=Path(__file__).parents[2]), Witness(root)
    while killed.poll() is None:
        witness.look()
        time.sleep(0.02)
    was_killed("flow", killed.wait())
    rows = in_file(tmp_path)
    assert wait_until_gone({row["pid"] for row in rows if "pid" in row}), "workers outlived it"
    acknowledged = max(row["samples"] for row in rows if row["event"] == "progress")

    (left,) = root.glob(f"verydeep-{killed.pid}-*")
    with witness.remembering():
        compare(left, tmp_path, tmp_path / "copy")
    shutil.rmtree(root)  # the power is lost

    heard = Listener()
    with open_cluster(doomed.CLUSTER) as client:
        result = train_downpour(
            client, doomed.FACTORY, CONFIG, doomed.CLUSTER, tmp_path, doomed.IDENTITY, heard
        )
    assert heard.of("start")[0]["resumed_at_samples"] >= acknowledged > 0
    assert result.num_samples == CONFIG.num_epochs * NUM_SAMPLES
    expected = CONFIG.num_epochs * sum(-(-size // 4) for size in UNIT_SIZES)
    for shard in latest(tmp_path).shards:  # each replica may have been in the middle of a push
        assert expected - doomed.CLUSTER.num_replicas <= shard.version <= expected
    assert not (tmp_path / "log").exists()
    assert not list(memory_folder.root().glob(f"verydeep-{os.getpid()}-*"))


class Witness:
    """Has the memory of a run open, which without it would be gone with the run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: dict[Path, int] = {}

    def look(self) -> None:
        """Open what is there, and stay with what is not there any more."""
        for path in self._root.glob("verydeep-*/*"):
            if path.is_symlink() and path not in self._opened:
                with suppress(FileNotFoundError):  # its owner has just died
                    self._opened[path] = os.open(path, os.O_RDWR)

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Have the paths lead to the memory as it was left, while the block lasts."""
        for path, descriptor in self._opened.items():
            path.unlink()
            path.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        yield
        for descriptor in self._opened.values():
            os.close(descriptor)


def compare(left: Path, folder: Path, logs: Path) -> None:
    """Each shard as its memory has it, and as the newest checkpoint and its log have it.

    The log may lack what was not acknowledged yet; in a copy of it a successor adds that.
    """
    shutil.copytree(folder / "log", logs)
    terms = read_terms(logs)
    assert terms is not None
    source = checkpoint.newest(folder / "checkpoints", terms.identity)
    for index in range(doomed.CLUSTER.num_shards):
        ours = salvage._take_over(left, terms, index)
        complete(ours, log_folder(logs, index), terms.dtype)
        again = salvage._from_log(source, logs, terms, index)
        assert Contents.of(again) == Contents.of(ours)
        assert again.version > source.shards[index].version == 0


def complete(shard: ParameterShard, folder: Path, dtype: torch.dtype) -> None:
    """Do with a log what a successor does that has the memory."""
    unlogged = shard.unlogged(lambda at: gradient_at(at, shard.num_values, dtype))
    heir = PushLog(folder, epoch=2, limit_bytes=10**9)
    heir.begin(shard.version, shard.table(), read_files(folder), unlogged)
    heir.close()
