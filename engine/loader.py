"""Mini-batches ahead of need: leases are asked for, read and decoded in a thread of their own."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from engine.downpour import Answer, Idle, LeasedMinibatch
from engine.draws import seed_of
from engine.ledger import Lease, Progress
from engine.problem import Problem

T = TypeVar("T")
_POLL_S = 0.1


class LeaseReply(NamedTuple):
    """The coordinator's answer: a lease, or none for now, or none ever (`done`)."""

    lease: Lease | None
    scale: float
    done: bool


def leased_minibatches(
    ask: Callable[[], LeaseReply], problem: Problem, size: int, seed: int, poll_s: float = _POLL_S
) -> Iterator[Answer]:
    """Ask for leases and yield their mini-batches until there is nothing left to do.

    Args:
        seed: of the run, see `engine.draws`.
    """
    while not (reply := ask()).done:
        if reply.lease is None:
            yield Idle()
            time.sleep(poll_s)  # leases of a lost replica may come back
            continue
        lease, upto = reply.lease, reply.lease.start
        for payload, num_samples in problem.minibatches(lease, size):
            drawn = seed_of(seed, lease.epoch, lease.unit, upto)
            upto += num_samples
            yield LeasedMinibatch(
                payload, num_samples, Progress(lease.id, upto), reply.scale, drawn
            )


def prefetched(items: Iterator[T], depth: int) -> Iterator[T]:
    """`items`, up to `depth` of them computed ahead in a thread; its exceptions come out here."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not closed.is_set():
            try:
                return ready.put((item, error), timeout=_POLL_S)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if closed.is_set():
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, StopIteration())

    threading.Thread(target=work, name="loader", daemon=True).start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        closed.set()
