"""Nothing of a killed run stays in shared memory, though nobody starts another."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine import memory
from engine.survivor import Survivor
from tests.engine.rows import in_file
from tests.engine.threaded import latest
from tests.kills import was_killed

ROOT = Path(__file__).parents[2]
#: Makes a folder with a file in it, starts its survivor, tells both, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from engine import memory
from engine.survivor import Survivor
memory.shared_root = lambda: Path(sys.argv[1])
folder = memory.create_folder("token---")
memory.create(folder / "shard-00.state", 4096)
print(Survivor(folder).pid, flush=True)
time.sleep(60)
"""


def wait_until_empty(root: Path) -> None:
    deadline = time.monotonic() + 30
    while left := list(root.iterdir()):
        assert time.monotonic() < deadline, f"{left} was left behind"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} has not ended"
        time.sleep(0.02)


@contextmanager
def owner(root: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that has memory in `root`, and the number of its survivor."""
    command = [sys.executable, "-c", OWNER, str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def doom(folder: Path, root: Path, number: int) -> "subprocess.Popen[bytes]":
    """Start a training that kills itself at its NUMBER-th progress; 0: does not."""
    module = ["-m", "tests.engine.doomed"]
    command = [sys.executable, *module, str(folder), "process", str(root), str(number)]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


def acknowledged(folder: Path) -> int:
    return max((r["samples"] for r in in_file(folder) if r["event"] == "progress"), default=0)


def named_semaphores(pid: int) -> list[Path]:
    """Those of a process, which has them mapped under names that they had at first."""
    maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    inodes = {int(fields[4]) for fields in maps if fields[-1] == "(deleted)"}
    return [path for path in Path("/dev/shm").glob("sem.*") if path.stat().st_ino in inodes]


def wait_until_removed(paths: list[Path]) -> None:
    deadline = time.monotonic() + 10
    while left := [path for path in paths if path.exists()]:
        assert time.monotonic() < deadline, f"{left} were left behind"
        time.sleep(0.02)


@pytest.mark.dask
@pytest.mark.parametrize("whole", [False, True], ids=["flow", "group"])
def test_memory_is_freed_and_what_was_acknowledged_is_kept(tmp_path, whole):
    root, folder = tmp_path / "memory", tmp_path / "run"
    root.mkdir()
    doomed, semaphores = doom(folder, root, 0 if whole else 3), []
    if whole:
        while not (folder / "events.jsonl").exists() or not acknowledged(folder):
            assert doomed.poll() is None
            time.sleep(0.01)
        semaphores = named_semaphores(doomed.pid)
        assert semaphores  # of the queues between Dask's nannies and workers
        os.killpg(doomed.pid, signal.SIGKILL)
    was_killed("flow", doomed.wait(90))
    assert list(root.glob(f"verydeep-{doomed.pid}-*"))  # so there is something to free
    wait_until_empty(root)
    wait_until_removed(semaphores)
    assert latest(folder).num_counted >= acknowledged(folder) > 0


def test_it_goes_on_waiting_when_the_run_is_asked_to_stop(tmp_path):
    with owner(tmp_path) as (process, survivor):
        wait_until_asleep(survivor)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(survivor, number)
        time.sleep(0.1)
        assert is_alive(survivor)
        assert list(tmp_path.iterdir())
        assert os.getsid(survivor) != os.getsid(process.pid)
        process.kill()
        process.wait()
        wait_until_empty(tmp_path)
        wait_until_dead(survivor)


def wait_until_asleep(survivor: int) -> None:
    """It waits for a process descriptor."""
    deadline = time.monotonic() + 10
    while "anon_inode:[pidfd]" not in opened(survivor):
        assert time.monotonic() < deadline, "it does not watch its owner"
        time.sleep(0.01)


def opened(pid: int) -> list[str]:
    names = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(os.readlink(descriptor))
        except FileNotFoundError:  # closed since
            continue
    return names


def test_an_owner_that_is_killed_at_once(tmp_path):
    with owner(tmp_path) as (process, survivor):
        process.kill()  # before it could look
        process.wait()
        wait_until_empty(tmp_path)
        wait_until_dead(survivor)


def test_one_whose_owner_is_done_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "shared_root", lambda: tmp_path)
    folder = memory.create_folder("token---")
    survivor = Survivor(folder)
    assert is_alive(survivor.pid)
    survivor.dismiss()
    assert not psutil.pid_exists(survivor.pid)
    assert folder.exists()


def test_a_folder_that_is_no_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"notes: want the memory folder of a run"):
        memory.owner_of(tmp_path / "notes")
