"""A shard's memory has one living owner, whatever became of the one before."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from engine.ownership import Ownership
from engine.push import FencedShardError
from tests.engine import in_processes
from tests.kills import process_state, was_killed


def hold(folder, epoch: int, ready: Connection) -> None:
    """What an owner's process does; it then sits there."""
    Ownership(folder, 0, epoch)
    ready.send("held")
    time.sleep(60)


@pytest.fixture
def owner(tmp_path) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that owns the memory of shard 0 in epoch 3."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([in_processes.__name__])
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, 3, theirs), daemon=True)
    process.start()
    assert ours.recv() == "held"
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_successor_ends_the_owner_and_then_has_the_memory(tmp_path, owner, stopped):
    if stopped:
        os.kill(owner.pid, signal.SIGSTOP)
        while process_state(owner.pid) != "T":
            time.sleep(0.001)
    Ownership(tmp_path, 0, 4).release()
    owner.join(10)
    was_killed("shard", owner.exitcode)


@pytest.mark.parametrize("epoch", [2, 3])
def test_who_comes_too_late_ends_nobody(tmp_path, owner, epoch):
    with pytest.raises(FencedShardError, match=rf"epoch {epoch} wants .* that epoch 3 owns"):
        Ownership(tmp_path, 0, epoch)
    assert owner.is_alive()


def test_an_owner_that_cannot_be_ended_is_named(tmp_path, owner, monkeypatch):
    monkeypatch.setattr("engine.ownership.end_process", lambda pid: None)
    monkeypatch.setattr("engine.ownership._DEATH_S", 0.05)
    with pytest.raises(FencedShardError, match=rf"process {owner.pid} holds in epoch 3.*end that"):
        Ownership(tmp_path, 0, 4)
    assert owner.is_alive()


def test_a_process_that_got_the_number_of_the_owner_is_left_alone(tmp_path, owner, monkeypatch):
    monkeypatch.setattr("engine.ownership.started_at", lambda pid: 1)
    monkeypatch.setattr("engine.ownership._DEATH_S", 0.05)
    with pytest.raises(FencedShardError):
        Ownership(tmp_path, 0, 4)
    assert owner.is_alive()


def test_an_owner_that_lets_go_in_time_is_not_ended(tmp_path):
    own = Ownership(tmp_path, 0, 1)  # of this very process: it would not survive being ended
    timer = threading.Timer(0.05, own.release)
    timer.start()
    Ownership(tmp_path, 0, 2, patience_s=10.0).release()
    timer.join()
