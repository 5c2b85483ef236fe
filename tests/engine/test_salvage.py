"""A flow killed at its worst moments leaves nothing acknowledged behind, whoever starts next."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine import memory
from engine.config import ClusterConfig
from engine.identity import CheckpointMismatchError
from engine.ownership import Ownership
from engine.salvage import salvage_all
from tests.engine.in_processes import process_run
from tests.engine.mortal_flow import CONFIG, WARM_STEPS
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES
from tests.engine.rows import Listener, in_file
from tests.engine.threaded import ThreadedRun, latest
from tests.kills import process_state, was_killed

PUSHES = CONFIG.num_epochs * sum(-(-size // CONFIG.minibatch_size) for size in UNIT_SIZES)
NUM_REPLICAS = 2


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """Where memory files lie: other runs on this machine would salvage them, too."""
    root = tmp_path / "memory"
    root.mkdir()
    monkeypatch.setattr(memory, "shared_root", lambda: root)
    return root


def kill_flow(folder: Path, point: str) -> int:
    """Start the flow, which dies at `point`; return its process's number."""
    root = str(memory.shared_root())
    command = [sys.executable, "-m", "tests.engine.mortal_flow", str(folder), point, root]
    flow = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    was_killed("flow", flow.wait(60))
    wait_until_gone({row["pid"] for row in in_file(folder) if "pid" in row})
    return flow.pid


def wait_until_gone(pids: set[int]) -> None:
    """The roles of a killed flow end by themselves."""
    deadline = time.monotonic() + 30
    while any(process_state(pid) not in "XZ" for pid in pids):
        assert time.monotonic() < deadline, "a role has outlived its flow"
        time.sleep(0.01)


def acknowledged(folder: Path) -> int:
    """Samples that a replica has told to be acknowledged, at most."""
    return max(row["samples"] for row in in_file(folder) if row["event"] == "progress")


def finish(folder: Path, num_kills: int, **cluster: Any) -> Listener:
    """Go on to the end; no sample may be missing, and no push be there twice."""
    done, heard = acknowledged(folder), Listener()
    with process_run(folder, CONFIG, heard, salvaging=True, **cluster) as run:
        run.start_all()
        run.drive_beside(lambda: None)
    assert heard.of("start")[0]["resumed_at_samples"] >= done > 0
    end = latest(folder)
    assert end.final
    assert end.num_counted == CONFIG.num_epochs * NUM_SAMPLES
    for shard in end.shards:  # each replica may have been in the middle of a push at each kill
        assert PUSHES - num_kills * NUM_REPLICAS <= shard.version <= PUSHES
    return heard


def memory_of(pid: int) -> list[Path]:
    return list(memory.shared_root().glob(f"verydeep-{pid}-*"))


@pytest.mark.parametrize("point", ["warm start", "snapshot", "final snapshot"])
def test_a_flow_killed_in(tmp_path, point):
    pid = kill_flow(tmp_path, point)
    assert memory_of(pid)
    heard = finish(tmp_path, num_kills=1)
    assert not memory_of(pid)
    over = [row for row in [*in_file(tmp_path)] if row["event"] == "warm_start_over"]
    assert len(over) == 1
    assert over[0]["steps"] >= WARM_STEPS
    assert len(heard.of("warm_start_over")) == (point == "warm start")


def test_a_flow_killed_before_anybody_had_work_owes_nothing_and_nothing_is_said_of_it(
    tmp_path, caplog
):
    pid = kill_flow(tmp_path, "beginning")
    assert memory_of(pid)
    assert salvage_all() == []
    assert not memory_of(pid)
    assert caplog.text == ""


def test_a_flow_killed_twice_in_a_row(tmp_path):
    kill_flow(tmp_path, "warm start")
    before = acknowledged(tmp_path)
    pid = kill_flow(tmp_path, "training")
    starts = [row for row in in_file(tmp_path) if row["event"] == "start"]
    assert starts[1]["resumed_at_samples"] >= before
    finish(tmp_path, num_kills=2)
    assert not memory_of(pid)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_what_a_killed_flow_owed_goes_on_with_another_number_of_shards(tmp_path, num_shards):
    pid = kill_flow(tmp_path, "training")
    with (
        pytest.raises(CheckpointMismatchError, match=r"shards: checkpoint 2, this run 4"),
        process_run(tmp_path, CONFIG, Listener(), salvaging=True, num_shards=4),
    ):
        pass
    assert not memory_of(pid)  # a refused run has saved what it found
    heard = finish(tmp_path, num_kills=1, num_shards=num_shards, allow_resharding=True)
    assert len(heard.of("shard_serving")) == len(latest(tmp_path).shards) == num_shards


def test_another_run_that_starts_in_between_keeps_what_the_killed_one_owed(tmp_path):
    pid = kill_flow(tmp_path / "killed", "warm start")
    done = acknowledged(tmp_path / "killed")
    cluster = ClusterConfig()
    other = ThreadedRun(tmp_path / "other", CONFIG, cluster, Listener(), salvaging=True)
    other.close()
    assert not memory_of(pid)
    (written,) = [c for c in other.salvaged if c.folder.is_relative_to(tmp_path)]
    assert written.num_counted >= done
    finish(tmp_path / "killed", num_kills=1)


def test_memory_that_somebody_still_holds_is_left_alone(tmp_path, monkeypatch):
    pid = kill_flow(tmp_path / "killed", "warm start")
    (folder,) = memory_of(pid)
    holder = Ownership(folder, 0, 100)  # as if in another container, where nobody ends it
    monkeypatch.setattr("engine.salvage._ORPHANS_S", 0.05)
    monkeypatch.setattr("engine.ownership._DEATH_S", 0.05)
    assert salvage_all() == []
    assert folder.exists()
    holder.release()
    monkeypatch.undo()
    monkeypatch.setattr(memory, "shared_root", lambda: folder.parent)
    assert len(salvage_all()) == 1


def test_salvaging_that_is_killed_is_done_again(tmp_path, monkeypatch):
    kill_flow(tmp_path / "killed", "warm start")
    with monkeypatch.context() as patched:
        patched.setattr("engine.checkpoint.commit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            salvage_all()
    (written,) = salvage_all()
    assert written.num_counted >= acknowledged(tmp_path / "killed")


def interrupt(*arguments: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_somebody_removed_is_not_brought_back(tmp_path):
    pid = kill_flow(tmp_path, "warm start")
    for document in (tmp_path / "checkpoints").glob("*/checkpoint.json"):
        document.parent.rename(tmp_path / f"moved-{document.parent.name}")
    ThreadedRun(tmp_path / "other", CONFIG, ClusterConfig(), Listener(), salvaging=True).close()
    assert not memory_of(pid)
    # A part of a snapshot may lie there, which the flow was killed in.
    assert not list((tmp_path / "checkpoints").glob("*/checkpoint.json"))
