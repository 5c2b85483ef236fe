"""Memory without a name: found by all of a run, gone when all of it is dead."""

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from engine import memory, memory_folder
from engine.keeper import NUM_AT_ONCE, Bequest, Keeper, _send
from engine.survivor import NOTE, WATCHING
from tests.engine.waiting import wait_until

ROOT = Path(__file__).parents[2]
#: So much that nothing else on this machine takes or frees it by chance.
LARGE = 300 * 2**20
#: Makes memory in a run's folder, tells where, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from engine import memory, memory_folder
from engine.run_memory import run_memory
memory_folder.root = lambda: Path(sys.argv[1])
with run_memory("token---") as folder:
    mapped = memory.create(folder / "shard-00.state", int(sys.argv[2]))
    mapped[:3] = b"abc"
    print(folder, flush=True)
    time.sleep(60)
"""
#: Keeps memory and does nothing else, so that the files that it has open are the same at any time.
KEEPER = """
import sys, time
from pathlib import Path
from engine import memory_folder
from engine.keeper import Keeper
memory_folder.root = lambda: Path(sys.argv[1])
folder = memory_folder.create("token---")
keeper = Keeper(folder)
print(folder, flush=True)
time.sleep(60)
"""
#: Maps the memory, says so, and waits to be killed.
USER = """
import sys, time
from pathlib import Path
from engine import memory
mapped = memory.open_existing(Path(sys.argv[1]), int(sys.argv[2]))
print(bytes(mapped[:3]).decode(), flush=True)
time.sleep(60)
"""
#: Makes memory, and says so once it has it.
CREATOR = """
import sys, time
from pathlib import Path
from engine import memory
memory.create(Path(sys.argv[1]), 100)[:2] = b"hi"
print("made", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_folder, "root", lambda: tmp_path)
    return memory_folder.create("token---")


@pytest.fixture
def keeper(folder):
    keeper = Keeper(folder)
    yield keeper
    keeper.close()


@contextmanager
def running(code: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def become_heir():
    """A function that has a keeper bequeath to us."""
    with ExitStack() as stack:

        def become(keeper: Keeper) -> Bequest:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            keeper.bequeath(ours)
            return Bequest(stack.enter_context(theirs))

        yield become


def survivor_of(folder: Path) -> int:
    wait_until(lambda: (folder / NOTE).exists() and WATCHING in (folder / NOTE).read_text(), "it")
    return int((folder / NOTE).read_text().split()[0])


def free_bytes() -> int:
    status = os.statvfs(memory.shared_root())
    return status.f_bavail * status.f_frsize


def test_when_everything_is_killed_nothing_is_left_of_it(tmp_path):
    before, names = free_bytes(), set(memory.shared_root().iterdir())
    with ExitStack() as stack:
        owner = stack.enter_context(running(OWNER, tmp_path, LARGE))
        folder = Path(told(owner))
        user = stack.enter_context(running(USER, folder / "shard-00.state", LARGE))
        assert told(user) == "abc"
        assert set(memory.shared_root().iterdir()) <= names
        assert free_bytes() < before - LARGE // 2
        for pid in (survivor_of(folder), owner.pid, user.pid):
            os.kill(pid, signal.SIGKILL)
        assert owner.wait() == user.wait() == -signal.SIGKILL
    wait_until(lambda: free_bytes() > before - LARGE // 2, "memory is free again")
    assert set(memory.shared_root().iterdir()) <= names


def test_what_is_removed_is_freed_though_the_run_and_its_heir_go_on(keeper, folder, become_heir):
    bequest = become_heir(keeper)
    before = free_bytes()
    memory.create(folder / "replica-0000-0001", LARGE).close()
    assert bequest.read()
    assert free_bytes() < before - LARGE // 2
    memory.remove(folder / "replica-0000-0001")
    assert bequest.read()
    wait_until(lambda: free_bytes() > before - LARGE // 2, "memory is free again")
    memory.remove(folder / "replica-0000-0001")  # nothing to be done


def test_a_name_that_was_taken_away_can_be_given_again(keeper, folder):
    memory.create(folder / "shard-00.state", 100)[:3] = b"old"
    (folder / "shard-00.state").unlink()
    memory.create(folder / "shard-00.state", 200)[:3] = b"new"
    assert memory.open_existing(folder / "shard-00.state", 200)[:3] == b"new"
    held = [link for link in opened(os.getpid()) if link.startswith(str(memory.shared_root()))]
    assert len(held) == 1  # nothing is mapped, and the old one is closed


def test_who_frees_it_late_does_not_free_what_has_its_name_by_then(keeper, folder):
    path = folder / "shard-00.state"
    memory.create(path, 100)
    old = path.readlink()
    path.unlink()
    memory.create(path, 200)
    _send(folder, [b"free", b"shard-00.state", os.fsencode(old)], [])
    memory.create(folder / "another", 100)  # so that the keeper has read all that came before
    assert memory.open_existing(path, 200)


def test_a_runs_folder_is_locked_for_those_who_clear_away_what_is_old(keeper, folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def opened(pid: int) -> list[str]:
    return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]


def test_an_heir_gets_what_was_there_before_it_and_what_comes_later(keeper, folder, become_heir):
    names = [f"vector-{i}" for i in range(2 * NUM_AT_ONCE + 1)]
    for i, name in enumerate(names):
        memory.create(folder / name, 100)[0] = i
    bequest = become_heir(keeper)
    memory.create(folder / "later", 100)[0] = 255
    memory.remove(folder / names[0])
    (folder / names[1]).unlink()
    bequest.read_all()
    keeper._lose_heir()
    wait_until(lambda: not bequest.read(), "it hears that no more comes")
    links = {name: (folder / name).readlink() for name in [*names[2:], "later"]}
    bequest.enter(folder)
    for i, name in [*enumerate(names)][2:]:
        assert memory.open_existing(folder / name, 100)[0] == i
    assert memory.open_existing(folder / "later", 100)[0] == 255
    for name in links:
        assert (folder / name).readlink() != links[name]
    assert not (folder / names[0]).exists()
    assert not (folder / names[1]).is_symlink()  # nobody wants it any more


def test_no_program_that_keeper_or_heir_starts_has_the_memory(keeper, folder, become_heir):
    bequest = become_heir(keeper)
    memory.create(folder / "shard-00.state", 100)
    assert bequest.read()
    held = [*keeper._held.values(), *bequest._held.values()]
    assert len(held) == 2
    assert not any(map(os.get_inheritable, held))


def test_an_heir_that_reads_nothing_holds_nobody_up_and_hears_that_it_is_over(
    keeper, folder, become_heir
):
    bequest, count = become_heir(keeper), 0
    keeper._heir.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for i in range(100):
        memory.create(folder / f"{i}", 10).close()
    while bequest.read():
        count += 1
    assert count < 100


def test_one_that_is_dead_is_said_to_be(tmp_path):
    with running(OWNER, tmp_path, 100) as owner:
        folder = Path(told(owner))
        os.kill(survivor_of(folder), signal.SIGKILL)
        owner.kill()
        owner.wait()
    with pytest.raises(ConnectionError, match=rf"new: process {owner.pid} has not taken"):
        memory.create(folder / "new", 100)
    memory.remove(folder / "shard-00.state")
    assert not (folder / "shard-00.state").is_symlink()


def test_one_that_is_stopped_is_waited_for(tmp_path):
    with running(OWNER, tmp_path, 100) as owner:
        folder = Path(told(owner))
        os.kill(owner.pid, signal.SIGSTOP)
        with running(CREATOR, folder / "new") as creator:
            with pytest.raises(subprocess.TimeoutExpired):
                creator.wait(2.5)  # longer than it waits before it looks
            os.kill(owner.pid, signal.SIGCONT)
            assert told(creator) == "made"
        assert memory.open_existing(folder / "new", 100)[:2] == b"hi"


def test_one_that_may_have_no_more_files_open_says_so_and_goes_on(tmp_path):
    with running(KEEPER, tmp_path) as owner:
        folder = Path(told(owner))
        taken = {int(path.name) for path in Path(f"/proc/{owner.pid}/fd").iterdir()}
        room = [number for number in range(len(taken) + 2) if number not in taken]
        limits = resource.prlimit(owner.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(owner.pid, resource.RLIMIT_NOFILE, (room[0], limits[1]))
        with pytest.raises(ConnectionError, match=r"may have no more files open \(ulimit -n\)"):
            memory.create(folder / "new", 100)
        resource.prlimit(owner.pid, resource.RLIMIT_NOFILE, (room[1], limits[1]))
        with pytest.raises(ConnectionError, match=r"may have no more files open \(ulimit -n\)"):
            memory.create(folder / "new", 100)  # it gets where to answer only
        assert len(list(Path(f"/proc/{owner.pid}/fd").iterdir())) == len(taken)
        resource.prlimit(owner.pid, resource.RLIMIT_NOFILE, limits)
        assert memory.create(folder / "new", 100)


def test_a_folder_may_have_a_long_path(tmp_path, monkeypatch):
    root = tmp_path / ("long-" * 40)
    root.mkdir()
    monkeypatch.setattr(memory_folder, "root", lambda: root)
    keeper = Keeper(memory_folder.create("token---"))
    folder = next(root.iterdir())
    assert memory.create(folder / "file", 100)[:1] == b"\0"
    keeper.close()
    assert not folder.exists()
