"""A flow killed at its worst moments leaves nothing acknowledged behind, whoever starts next."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from engine import memory_folder
from engine.config import ClusterConfig
from engine.identity import CheckpointMismatchError
from engine.predecessors import await_survivors
from engine.survivor import NOTE, REFUSED, SETTLING, WATCHING, Note
from tests.engine.in_processes import process_run
from tests.engine.mortal_flow import CONFIG, OBSTACLE, WARM_STEPS
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES
from tests.engine.rows import Listener, in_file
from tests.engine.threaded import ThreadedRun, latest
from tests.engine.waiting import wait_until
from tests.kills import process_state, was_killed

PUSHES = CONFIG.num_epochs * sum(-(-size // CONFIG.minibatch_size) for size in UNIT_SIZES)
NUM_REPLICAS = 2


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """Where the folders of runs lie: no other run on this machine looks there."""
    root = tmp_path / "memory"
    root.mkdir()
    monkeypatch.setattr(memory_folder, "root", lambda: root)
    return root


def kill_flow(folder: Path, point: str, *last: str) -> int:
    """Start the flow, which dies at `point`; return its process's number."""
    root = str(memory_folder.root())
    command = [sys.executable, "-m", "tests.engine.mortal_flow", str(folder), point, root, *last]
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


def finish(folder: Path, num_kills: int, done: int | None = None, **cluster: Any) -> Listener:
    """Go on to the end; no sample may be missing, and no push be there twice.

    Args:
        done: samples that it goes on from, at least; otherwise all that were acknowledged.
    """
    done, heard = acknowledged(folder) if done is None else done, Listener()
    with process_run(folder, CONFIG, heard, salvaging=True, **cluster) as run:
        run.start_all()
        run.drive_beside(lambda: None)
    assert heard.of("start")[0]["resumed_at_samples"] >= done
    end = latest(folder)
    assert end.final
    assert end.num_counted == CONFIG.num_epochs * NUM_SAMPLES
    for shard in end.shards:  # each replica may have been in the middle of a push at each kill
        assert PUSHES - num_kills * NUM_REPLICAS <= shard.version <= PUSHES
    return heard


def memory_of(pid: int) -> list[Path]:
    return list(memory_folder.root().glob(f"verydeep-{pid}-*"))


@pytest.mark.parametrize("point", ["warm start", "snapshot", "final snapshot"])
def test_a_flow_killed_in(tmp_path, point):
    pid = kill_flow(tmp_path, point)
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
    before = latest(tmp_path)
    await_survivors()
    assert not memory_of(pid)
    assert latest(tmp_path).id == before.id
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
    assert latest(tmp_path / "killed").num_counted >= done
    finish(tmp_path / "killed", num_kills=1)


def test_a_disk_that_refuses_the_checkpoint_is_tried_again_until_it_takes_it(tmp_path):
    pid = kill_flow(tmp_path, "warm start", "refuse")
    wait_until(lambda: REFUSED in note_of(pid), "the disk refuses")
    obstacle = tmp_path / "checkpoints" / OBSTACLE
    assert str(obstacle) in note_of(pid)
    obstacle.unlink()
    await_survivors()
    assert not memory_of(pid)
    assert latest(tmp_path).num_counted >= acknowledged(tmp_path) > 0


def test_where_the_disk_goes_on_to_refuse_it_the_next_run_says_so_and_goes_on_without(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("engine.predecessors._PATIENCE_S", 0.2)
    pid = kill_flow(tmp_path, "warm start", "refuse")
    wait_until(lambda: REFUSED in note_of(pid), "the disk refuses")
    await_survivors()
    assert not memory_of(pid)
    obstacle = tmp_path / "checkpoints" / OBSTACLE
    assert (
        "the checkpoint that a killed run owed is given up: [Errno 20] Not a directory: "
        in caplog.text
    )
    assert str(obstacle) in caplog.text
    obstacle.unlink()
    kept = latest(tmp_path).num_counted
    assert kept < acknowledged(tmp_path)
    finish(tmp_path, num_kills=1, done=kept)


def test_a_survivor_that_takes_long_is_waited_for_and_that_is_said(
    tmp_path, root, caplog, monkeypatch
):
    monkeypatch.setattr("engine.predecessors._PATIENCE_S", 0.1)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = root / f"verydeep-{dead.pid}-1700000000-deadbeef"
    folder.mkdir()
    note = Note(folder)  # ours, as if it were a survivor's
    note.say(SETTLING)
    waiting = threading.Thread(target=await_survivors)
    waiting.start()
    told = f"waiting for process {os.getpid()}, which writes the checkpoint"
    wait_until(lambda: told in caplog.text, "it is said")
    time.sleep(0.2)
    assert waiting.is_alive()
    assert folder.exists()
    note.close()
    waiting.join()
    assert not folder.exists()
    assert caplog.text.count(told) == 1


def note_of(pid: int) -> str:
    return "".join((folder / NOTE).read_text() for folder in memory_of(pid))


def test_where_the_survivor_is_killed_with_the_flow_the_newest_checkpoint_counts(tmp_path):
    pid = kill_flow(tmp_path, "warm start", "kill")
    kept = latest(tmp_path).num_counted
    finish(tmp_path, num_kills=1, done=kept)
    assert not memory_of(pid)


def test_a_survivor_that_is_stopped_is_left_alone_and_does_its_work_when_it_wakes(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("engine.predecessors._PATIENCE_S", 0.2)
    pid = kill_flow(tmp_path, "warm start", "stop")
    (folder,) = memory_of(pid)
    before = latest(tmp_path).num_counted
    await_survivors()
    (survivor, state, _) = note_of(pid).split(" ", 2)
    assert state == WATCHING
    assert f"{folder} is left alone: process {survivor} does not see to it" in caplog.text
    assert latest(tmp_path).num_counted == before
    os.kill(int(survivor), signal.SIGCONT)
    wait_until(lambda: not memory_of(pid), "its memory is freed")
    assert latest(tmp_path).num_counted >= acknowledged(tmp_path) > 0


def test_a_run_killed_before_it_had_a_survivor_has_left_a_folder_that_is_removed(root):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = root / f"verydeep-{dead.pid}-1700000000-deadbeef"
    folder.mkdir()
    await_survivors()
    assert not folder.exists()


def test_a_run_that_somebody_removed_is_not_brought_back(tmp_path):
    pid = kill_flow(tmp_path, "warm start")
    for document in (tmp_path / "checkpoints").glob("*/checkpoint.json"):
        document.parent.rename(tmp_path / f"moved-{document.parent.name}")
    ThreadedRun(tmp_path / "other", CONFIG, ClusterConfig(), Listener(), salvaging=True).close()
    assert not memory_of(pid)
    # A part of a snapshot may lie there, which the flow was killed in.
    assert not list((tmp_path / "checkpoints").glob("*/checkpoint.json"))
