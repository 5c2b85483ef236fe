"""How a replica waits for a shard: awake if the last reply was quick, else asleep."""

import threading
import time
from collections.abc import Iterator

import pytest

import engine.link
from tests.engine.serving import Serving, serving

#: So long that a reply is quick even where both ends share a process on a busy machine.
LIMIT_S = 0.2


@pytest.fixture
def watched(monkeypatch) -> list[float]:
    """Seconds for which a reply may be waited for awake, each time that it is."""
    monkeypatch.setattr(engine.link, "_AWAKE_S", LIMIT_S)
    limits: list[float] = []
    watch = engine.link._watch

    def noted(sock, end) -> None:
        limits.append(end - time.perf_counter())
        watch(sock, end)

    monkeypatch.setattr(engine.link, "_watch", noted)
    return limits


@pytest.fixture
def link(tmp_path) -> Iterator[Serving]:
    with serving(tmp_path, num_shards=1) as link:
        yield link


def fetch_slowly(link: Serving) -> float:
    """A fetch from a shard that is busy; the processor's time that this thread takes."""
    held = threading.Event()

    def hold() -> None:
        with link.endpoints[0].lock:
            held.set()
            time.sleep(5 * LIMIT_S)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    start = time.thread_time()
    link.server.fetch(0)
    taken = time.thread_time() - start
    holder.join()
    return taken


def test_after_a_quick_reply_the_next_is_waited_for_awake(link, watched):
    link.server.fetch(0)  # over a new connection
    assert not watched
    link.server.fetch(0)
    (limit,) = watched
    assert LIMIT_S / 2 < limit <= LIMIT_S


def test_a_slow_reply_is_slept_for_and_so_is_the_one_behind_it(link, watched):
    link.server.fetch(0)
    assert fetch_slowly(link) < 2 * LIMIT_S
    link.server.fetch(0)
    assert len(watched) == 1


def test_a_shard_on_another_host_is_slept_for(tmp_path, watched):
    with serving(tmp_path, num_shards=1, same_host=False) as link:
        for _ in range(100):
            link.server.fetch(0)
    assert not watched
