"""A push over real sockets to a shard with a log: parameters at once, the acknowledgement later."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.frames import Message, PeerGoneError
from engine.push_log import PushLog
from engine.shard_session import SocketSession
from tests.engine.serving import Serving, serving
from tests.engine.shards import vector


class StuckDisk:
    """Syncs wait until `go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        sync = os.fdatasync

        def fdatasync(descriptor: int) -> None:
            assert self.go_on.wait(20)
            sync(descriptor)

        monkeypatch.setattr("engine.block_file.os.fdatasync", fdatasync)


@contextmanager
def logged(folder: Path, **options: Any) -> Iterator[Serving]:
    """Shards with logs, two of them unless `options` say otherwise."""
    with serving(folder, **options) as run:
        logs = []
        for index, endpoint in enumerate(run.endpoints):
            log = PushLog(folder / "log" / str(index), epoch=1, limit_bytes=10**9)
            log.begin(0, endpoint.shard.table())
            endpoint.log = endpoint.shard._log = log
            logs.append(log)
        yield run
    for log in logs:
        log.close()


@pytest.mark.parametrize("same_host", [True, False])
def test_parameters_come_before_the_disk_is_done_and_the_acknowledgement_after(
    tmp_path, monkeypatch, same_host
):
    disk = StuckDisk(monkeypatch)
    with logged(tmp_path, same_host=same_host) as run, ThreadPoolExecutor(1) as thread:
        run.segment.gradients[0].copy_(vector(100, seed=1))
        answers, versions = run.exchange(1, buffer=0)
        assert versions == [1, 1]
        assert [answer.durable for answer in answers] == [False, False]
        assert torch.equal(run.segment.parameters[0], run.parameters())
        settled = thread.submit(run.server.settle, answers)
        with pytest.raises(TimeoutError):
            settled.result(0.05)
        disk.go_on.set()
        assert settled.result(10) == answers


def test_a_push_without_a_fetch_has_one_answer_when_the_disk_is_done(tmp_path, monkeypatch):
    disk = StuckDisk(monkeypatch)
    with logged(tmp_path) as run, ThreadPoolExecutor(1) as thread:
        run.segment.gradients[0].copy_(vector(100, seed=1))
        pushed = thread.submit(run.push, 1)
        with pytest.raises(TimeoutError):
            pushed.result(0.05)
        disk.go_on.set()
        assert all(answer.durable for answer in pushed.result(10))


def test_a_shard_that_is_lost_before_it_acknowledges_is_sent_the_push_again(tmp_path, monkeypatch):
    disk = StuckDisk(monkeypatch)
    with logged(tmp_path) as run, ThreadPoolExecutor(1) as thread:
        run.segment.gradients[0].copy_(vector(100, seed=1))
        answers, _ = run.exchange(1, buffer=0)
        run.proxies[0].lose_next_reply()
        settled = thread.submit(run.server.settle, answers)
        disk.go_on.set()
        first, second = settled.result(10)
        assert run.proxies[0].replies_lost == 1
        assert (first.duplicate, first.durable) == (True, True)  # asked again, it knew the push
        assert second == answers[1]
        assert [shard.version for shard in run.shards] == [1, 1]


def test_a_gradient_from_another_host_is_kept_until_it_is_on_the_disk(tmp_path, monkeypatch):
    reply, failures = SocketSession.send_with_values, iter([PeerGoneError("hung up")])

    def fail_once(session: SocketSession, message: Message) -> None:
        for failure in failures:
            raise failure
        reply(session, message)

    monkeypatch.setattr(SocketSession, "send_with_values", fail_once)
    disk = StuckDisk(monkeypatch)
    options = {"same_host": False, "num_shards": 1}
    with logged(tmp_path, **options) as run, ThreadPoolExecutor(1) as thread:
        run.segment.gradients[0].copy_(vector(100, seed=1))
        exchanged = thread.submit(run.exchange, 1, buffer=0)
        while run.shards[0].version == 0:  # its first connection is about to break
            pass
        (inbox,) = tmp_path.glob("inbox-*")
        with pytest.raises(TimeoutError):
            exchanged.result(0.05)
        assert inbox.exists()
        disk.go_on.set()
        (answer,), _ = exchanged.result(10)
        assert answer.duplicate  # it was sent again
        assert not inbox.exists()
