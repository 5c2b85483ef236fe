"""Mini-batches ahead of need: leases become mini-batches, in a thread of their own."""

import threading
import time
from collections.abc import Iterator

import pytest

from engine.downpour import Idle, LeasedMinibatch
from engine.ledger import Lease, Progress
from engine.loader import LeaseReply, leased_minibatches, prefetched
from tests.engine.problems import classifier

DONE = LeaseReply(None, 1.0, done=True)


def answers(*replies: LeaseReply) -> list[LeasedMinibatch | Idle]:
    given = iter(replies)
    return list(leased_minibatches(lambda: next(given), classifier(), 4, 0, poll_s=0.0))


def test_each_minibatch_knows_how_far_it_brings_its_lease():
    lease = Lease(7, 0, 0, 10, 20)
    batches = answers(LeaseReply(lease, 0.5, done=False), DONE)
    assert [b.progress for b in batches] == [Progress(7, 14), Progress(7, 18), Progress(7, 20)]
    assert [b.num_samples for b in batches] == [4, 4, 2]
    assert {b.scale for b in batches} == {0.5}


def test_no_lease_for_now_is_idle_and_not_the_end():
    lease = LeaseReply(Lease(1, 0, 0, 0, 4), 1.0, done=False)
    nothing = LeaseReply(None, 1.0, done=False)
    kinds = [type(answer) for answer in answers(nothing, lease, nothing, nothing, DONE)]
    assert kinds == [Idle, LeasedMinibatch, Idle, Idle]


def test_prefetched_items_come_in_order_and_are_all_there():
    assert list(prefetched(iter(range(100)), depth=3)) == list(range(100))


def test_no_more_items_are_computed_ahead_than_asked_for():
    computed: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            computed.append(i)
            yield i

    taken = prefetched(items(), depth=3)
    next(taken)
    time.sleep(0.1)  # time enough to run far ahead
    # one taken, three waiting, one in the loader's hand
    assert len(computed) == 5
    taken.close()


def test_an_error_in_the_loader_comes_out_where_the_item_was_wanted():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("tar 3 is gone")

    taken = prefetched(items(), depth=2)
    assert next(taken) == 1
    with pytest.raises(OSError, match="tar 3 is gone"):
        next(taken)


def test_the_loader_ends_with_its_consumer():
    before = set(threading.enumerate())  # other tests' replicas may be on their way out
    taken = prefetched(iter(range(100)), depth=2)
    next(taken)
    (loader,) = set(threading.enumerate()) - before
    taken.close()
    loader.join(5)
    assert not loader.is_alive()
