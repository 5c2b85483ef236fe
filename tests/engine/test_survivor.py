"""Nothing of a killed run stays in shared memory, though nobody starts another."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine import memory, memory_folder
from engine.keeper import Keeper
from engine.run_memory import run_memory
from engine.survivor import Survivor
from tests.engine.rows import in_file
from tests.engine.threaded import latest
from tests.engine.waiting import survivors, wait_until
from tests.kills import process_state, was_killed

ROOT = Path(__file__).parents[2]
#: Makes a folder with a file in it, starts its survivor, tells both, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from engine import memory, memory_folder
from engine.keeper import Keeper
from engine.survivor import Survivor
memory_folder.root = lambda: Path(sys.argv[1])
folder = memory_folder.create("token---")
keeper = Keeper(folder)
memory.create(folder / "shard-00.state", 4096)
print(Survivor(folder, keeper).pid, flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    return process_state(pid) not in "XZ"


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


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
    """Samples of the acknowledged updates; 0 before there is an event log."""
    if not (folder / "events.jsonl").exists():
        return 0
    return max((r["samples"] for r in in_file(folder) if r["event"] == "progress"), default=0)


@pytest.mark.dask
@pytest.mark.parametrize("whole", [False, True], ids=["flow", "group"])
def test_memory_is_freed_and_what_was_acknowledged_is_kept(tmp_path, whole):
    root, folder = tmp_path / "memory", tmp_path / "run"
    root.mkdir()
    doomed = doom(folder, root, 0 if whole else 3)
    if whole:
        wait_until(lambda: acknowledged(folder) > 0, "an update is acknowledged")
        os.killpg(doomed.pid, signal.SIGKILL)
    was_killed("flow", doomed.wait(90))
    wait_until(lambda: is_empty(root), "its memory is freed")
    assert latest(folder).num_counted >= acknowledged(folder) > 0


def test_it_goes_on_waiting_when_the_run_is_asked_to_stop(tmp_path):
    with owner(tmp_path) as (process, survivor):
        wait_until(lambda: "anon_inode:[pidfd]" in opened(survivor), "it watches its owner")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(survivor, number)
        time.sleep(0.1)  # a signal that ends it would have by then
        assert is_alive(survivor)
        assert list(tmp_path.iterdir())
        assert os.getsid(survivor) != os.getsid(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: is_empty(tmp_path), "its memory is freed")
        wait_until(lambda: not is_alive(survivor), "the survivor has ended")


def opened(pid: int) -> list[str]:
    """What a process has open."""
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
        wait_until(lambda: is_empty(tmp_path), "its memory is freed")
        wait_until(lambda: not is_alive(survivor), "the survivor has ended")


def test_one_that_is_killed_alone_is_replaced(tmp_path):
    with owner(tmp_path) as (process, first):
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: survivors(process.pid) - {first}, "another one is there")
        (second,) = survivors(process.pid) - {first}
        process.kill()
        process.wait()
        wait_until(lambda: is_empty(tmp_path), "its memory is freed")
        wait_until(lambda: not is_alive(second), "the survivor has ended")


def test_one_that_was_stopped_for_long_gives_way_to_one_that_has_all_of_the_memory(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(memory_folder, "root", lambda: tmp_path)
    with run_memory("token---") as folder:
        (stopped,) = survivors(os.getpid())
        wait_until(lambda: "anon_inode:[pidfd]" in opened(stopped), "it watches its owner")
        os.kill(stopped, signal.SIGSTOP)
        for i in range(400):  # more than it could be told meanwhile
            memory.create(folder / f"vector-{i}", 10).close()
        os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: survivors(os.getpid()) - {stopped}, "another one is there")
        (other,) = survivors(os.getpid()) - {stopped}
        wait_until(lambda: num_kept(other) == 400, "it has all of the memory")
        for left in range(399, 0, -57):  # fewer at once than it can be told
            for i in range(left - 57, left):
                memory.remove(folder / f"vector-{i}")
            expected = 1 + left - 57
            wait_until(lambda n=expected: num_kept(other) == n, "it lets go of what is removed")


def num_kept(pid: int) -> int:
    return sum(name.startswith(str(memory.shared_root())) for name in opened(pid))


def test_one_whose_owner_is_done_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_folder, "root", lambda: tmp_path)
    folder = memory_folder.create("token---")
    keeper = Keeper(folder)
    survivor = Survivor(folder, keeper)
    assert is_alive(survivor.pid)
    survivor.dismiss()
    assert not is_alive(survivor.pid)
    assert folder.exists()
    keeper.close()
    assert not folder.exists()
