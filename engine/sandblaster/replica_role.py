"""The long-running role of a Sandblaster replica, as a function of a plain specification.

Three threads: one listens to the coordinator, one reads mini-batches ahead of need, one computes.
"""

import logging
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from engine.coordinator_link import CoordinatorLink
from engine.device import device_of, take_gpu
from engine.link import Directory, ShardAddress, StoppedError
from engine.loader import prefetched
from engine.problem import Problem, ProblemFactory
from engine.run_spec import RunSpec, segment_name
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.evaluation import Slot, slot_name
from engine.sandblaster.inbox import Inbox, Validate
from engine.sandblaster.links import VectorLinks
from engine.sandblaster.stopwatch import Stopwatch
from engine.sandblaster.work import Piece, WorkOrder, compute, pieces
from engine.segment import Segment

log = logging.getLogger(__name__)


class _End(NamedTuple):
    """All mini-batches of the work have been read."""


#: What the reading thread hands to the computing one: an order, its pieces, its end.
_Item = WorkOrder | Validate | Piece | _End


def run_replica(
    run: RunSpec, index: int, factory: ProblemFactory, config: SandblasterConfig, worker: str
) -> None:
    """Compute portions until the coordinator stops or disappears."""
    take_gpu(index)
    problem = factory()
    while True:
        try:
            link = CoordinatorLink(
                run.coordinator,
                run.token,
                "replica",
                index,
                worker,
                run.heartbeat_interval_s,
                run.tls,
                {"phase": run.phase},
            )
        except OSError as error:
            log.warning("replica %d: the coordinator is gone: %s", index, error)
            return
        try:
            _live(run, index, problem, config, link)
            return
        except (ConnectionError, StoppedError) as error:
            log.warning("replica %d starts a new life: %s", index, error)
        finally:
            link.close()


def _live(
    run: RunSpec, index: int, problem: Problem, config: SandblasterConfig, link: CoordinatorLink
) -> None:
    """One incarnation: do what the coordinator asks until it stops us.

    Raises:
        StoppedError, ConnectionError: this life has ended otherwise.
    """
    welcome = link.receive()
    if welcome["op"] != "welcome":  # the run ended while we were starting
        return
    incarnation = int(welcome["incarnation"])
    directory = Directory([ShardAddress(*a) for a in welcome["shards"]], run.tls)
    path = run.memory / segment_name(index, incarnation)
    segment = Segment(path, run.size, run.dtype, new=True)
    hello = {"token": run.token, "size": run.size}
    hello |= {"replica": index, "incarnation": incarnation}
    inbox = Inbox(directory)
    links = VectorLinks(directory, segment, hello, run.slices)
    slots = [slot_name(Slot(index, incarnation, k)) for k in range(len(segment.gradients))]
    try:
        listen = threading.Thread(target=inbox.listen, args=(link,), name="listen", daemon=True)
        listen.start()
        _Computing(problem, config, inbox, link, links, segment, slots).go_on()
        if not inbox.stopped:
            raise StoppedError("the coordinator hung up")
    except (ConnectionError, StoppedError):
        if not inbox.stopped:
            raise
    finally:
        links.close()


class _Computing:
    """The computing thread: carries out orders whose mini-batches another one has read."""

    def __init__(
        self,
        problem: Problem,
        config: SandblasterConfig,
        inbox: Inbox,
        link: CoordinatorLink,
        links: VectorLinks,
        segment: Segment,
        slots: list[str],
    ) -> None:
        """`slots` are the names of the segment's gradient slots."""
        self._problem, self._config = problem, config
        self._inbox, self._link, self._links = inbox, link, links
        self._segment, self._slots = segment, slots
        self._parameters = segment.parameters[0]
        self._device = device_of(problem)
        self._scratch: list[Tensor] = []
        self._fetched = 0  # evaluation whose point the parameters are
        self._waiting = Stopwatch()

    def go_on(self) -> None:
        """Carry out orders until there are no more."""
        items = prefetched(self._read_ahead(), self._config.prefetch)
        while (item := self._next(items)) is not None:
            match item:
                case Validate(point):
                    self._validate(point)
                case WorkOrder() if self._inbox.stale(item):
                    for _ in _of_one_work(items):
                        pass
                case WorkOrder():
                    self._compute(item, items)

    def _read_ahead(self) -> Iterator[_Item]:
        """In the reading thread: orders, each followed by its pieces."""
        for order in self._inbox.orders():
            yield order
            if isinstance(order, WorkOrder):
                if not self._inbox.stale(order):
                    size, seed = self._config.minibatch_size, self._config.seed
                    yield from pieces(self._problem, order, size, seed)
                yield _End()

    def _compute(self, order: WorkOrder, items: Iterator[_Item]) -> None:
        started, waited_before = time.monotonic(), self._waiting.total_s
        if self._fetched != order.evaluation:
            with self._waiting:
                self._links.fetch(order.point, 0)
            self._fetched = order.evaluation
        slot = self._take_slot() if order.gradient else None
        into = self._segment.gradients[slot or 0]
        accrued, spare = self._accruing(into)
        found = self._wanted(order, _of_one_work(items))
        losses = compute(self._problem, self._parameters, order, found, accrued, spare)
        if order.gradient and accrued is not into:
            into.copy_(accrued)
        took_s = time.monotonic() - started
        waiting_s = self._waiting.total_s - waited_before
        if slot is not None:
            if self._inbox.stale(order):
                self._inbox.give_back(slot)
                return
            self._links.stage(self._slots[slot], slot)
        self._link.send(
            "sum",
            work=order.work,
            evaluation=order.evaluation,
            slot=slot,
            losses=losses,
            took_s=took_s,
            computing_s=took_s - waiting_s,
            waiting_s=self._waiting.take(),
        )

    def _accruing(self, slot: Tensor) -> tuple[Tensor, Tensor]:
        """Where gradients are summed, and scratch: the slot itself, unless a GPU computes them."""
        apart = self._device.type != "cpu"
        if not self._scratch:
            self._scratch = [
                torch.empty_like(self._parameters, device=self._device) for _ in range(1 + apart)
            ]
        return (self._scratch[1] if apart else slot), self._scratch[0]

    def _validate(self, point: str) -> None:
        self._links.fetch(point, 0)
        self._fetched = 0
        self._link.send("measured", metrics=self._problem.validate(self._parameters))

    def _take_slot(self) -> int:
        with self._waiting:
            return self._inbox.take_slot()

    def _next(self, items: Iterator[_Item]) -> _Item | None:
        with self._waiting:
            return next(items, None)

    def _wanted(self, order: WorkOrder, found: Iterator[Piece]) -> Iterator[Piece]:
        """`found`, its waiting counted; none of it once the order's evaluation is over."""
        while True:
            with self._waiting:
                piece = next(found, None)
            if piece is None:
                return
            if not self._inbox.stale(order):
                yield piece


def _of_one_work(items: Iterator[_Item]) -> Iterator[Piece]:
    """The pieces up to the end of the work."""
    for item in items:
        if not isinstance(item, Piece):
            return
        yield item
