"""The long-running role of a Sandblaster replica, as a function of a plain specification.

Three threads: one listens to the coordinator, one reads mini-batches ahead of need, one computes.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from engine.coordinator_link import CoordinatorLink
from engine.frames import Message
from engine.link import Directory, ShardAddress, StoppedError
from engine.loader import prefetched
from engine.problem import Problem, ProblemFactory
from engine.run_spec import RunSpec, segment_name
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.evaluation import Slot, slot_name
from engine.sandblaster.links import VectorLinks
from engine.sandblaster.work import Piece, WorkOrder, compute, pieces
from engine.segment import NUM_SLOTS, Segment

log = logging.getLogger(__name__)


class _Validate(NamedTuple):
    """Measure a point on held-out data."""

    point: str


class _End(NamedTuple):
    """All mini-batches of the work have been read."""


#: What the reading thread hands to the computing one: an order, its pieces, its end.
_Item = WorkOrder | _Validate | Piece | _End


def run_replica(
    run: RunSpec, index: int, factory: ProblemFactory, config: SandblasterConfig, worker: str
) -> None:
    """Compute portions until the coordinator stops or disappears."""
    problem = factory()
    while True:
        try:
            life = _Life(run, index, problem, config, worker)
        except OSError as error:
            log.warning("replica %d: the coordinator is gone: %s", index, error)
            return
        try:
            life.work()
            return
        except (ConnectionError, StoppedError) as error:
            if life.stopped:
                return
            log.warning("replica %d starts a new life: %s", index, error)
        finally:
            life.close()


class _Life:
    """One incarnation: its connections, its memory file, what it has been told."""

    def __init__(
        self, run: RunSpec, index: int, problem: Problem, config: SandblasterConfig, worker: str
    ) -> None:
        self._run = run
        self._index = index
        self._problem = problem
        self._config = config
        self._link = CoordinatorLink(
            run.coordinator, run.token, "replica", index, worker, run.heartbeat_interval_s, run.tls
        )
        self._orders: queue.Queue[WorkOrder | _Validate | None] = queue.Queue()
        self._free: queue.Queue[int | None] = queue.Queue()  # gradient slots
        self._newest = 0  # evaluation that the coordinator wants
        self._fetched = 0  # evaluation whose point lies in the parameter buffer
        self._waiting_s = 0.0
        self._directory: Directory | None = None
        self._links: VectorLinks | None = None
        self.stopped = False  # told so by the coordinator

    def work(self) -> None:
        """Do what the coordinator asks until it stops us.

        Raises:
            StoppedError, ConnectionError: this life has ended.
        """
        welcome = self._link.receive()
        if welcome["op"] != "welcome":  # the run ended while we were starting
            self.stopped = True
            return
        incarnation = int(welcome["incarnation"])
        self._directory = Directory([ShardAddress(*a) for a in welcome["shards"]], self._run.tls)
        size, dtype = self._run.size, self._run.dtype
        path = self._run.memory / segment_name(self._index, incarnation)
        segment = Segment(path, size, dtype, new=True)
        hello = {"token": self._run.token, "size": size}
        hello |= {"replica": self._index, "incarnation": incarnation}
        self._links = VectorLinks(self._directory, segment, hello, self._run.slices)
        for slot in range(NUM_SLOTS):
            self._free.put(slot)
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        self._compute_all(segment, incarnation)

    def close(self) -> None:
        self._link.close()
        if self._links:
            self._links.close()

    def _listen(self) -> None:
        """Receive what the coordinator says until it hangs up."""
        assert self._directory is not None
        try:
            while (message := self._link.receive())["op"] != "stop":
                self._hear(message)
            self.stopped = True
        except OSError as error:
            log.debug("replica %d: %s", self._index, error)
        self._directory.stop()
        self._orders.put(None)
        self._free.put(None)

    def _hear(self, message: Message) -> None:
        assert self._directory is not None
        match message["op"]:
            case "work":
                order = WorkOrder.of(message)
                self._newest = order.evaluation
                self._orders.put(order)
            case "validate":
                self._orders.put(_Validate(str(message["point"])))
            case "released":
                self._free.put(int(message["slot"]))
            case "shard":
                self._directory.move(message["index"], ShardAddress(*message["address"]))

    def _read_ahead(self) -> Iterator[_Item]:
        """In the reading thread: orders, each followed by its pieces."""
        while (order := self._orders.get()) is not None:
            yield order
            if isinstance(order, WorkOrder):
                if not self._stale(order):
                    size, seed = self._config.minibatch_size, self._config.seed
                    yield from pieces(self._problem, order, size, seed)
                yield _End()

    def _stale(self, order: WorkOrder) -> bool:
        return order.evaluation < self._newest

    def _compute_all(self, segment: Segment, incarnation: int) -> None:
        items = prefetched(self._read_ahead(), self._config.prefetch)
        spare = segment.gradients[0].new_empty(0)
        parameters = segment.parameters[0]
        while (item := self._next(items)) is not None:
            match item:
                case _Validate(point):
                    self._validate(point, parameters)
                case WorkOrder() if self._stale(item):
                    for _ in _of_one_work(items):
                        pass
                case WorkOrder():
                    if not spare.numel():
                        spare = parameters.clone()
                    self._compute(item, items, segment, incarnation, spare)
        if not self.stopped:
            raise StoppedError("the coordinator hung up")

    def _compute(
        self,
        order: WorkOrder,
        items: Iterator[_Item],
        segment: Segment,
        incarnation: int,
        spare: Tensor,
    ) -> None:
        assert self._links is not None
        started, waited_before = time.monotonic(), self._waiting_s
        if self._fetched != order.evaluation:
            with _Waiting(self):
                self._links.fetch(order.point, 0)
            self._fetched = order.evaluation
        slot = self._free_slot() if order.gradient else None
        accrued = segment.gradients[slot or 0]
        found = self._wanted(order, _of_one_work(items))
        losses = compute(self._problem, segment.parameters[0], order, found, accrued, spare)
        waiting_s = self._waiting_s - waited_before
        if slot is not None:
            if self._stale(order):
                self._free.put(slot)
                return
            self._links.stage(slot_name(Slot(self._index, incarnation, slot)), slot)
        self._link.send(
            "sum",
            work=order.work,
            evaluation=order.evaluation,
            slot=slot,
            losses=losses,
            computing_s=time.monotonic() - started - waiting_s,
            waiting_s=self._take_waiting(),
        )

    def _validate(self, point: str, parameters: Tensor) -> None:
        assert self._links is not None
        self._links.fetch(point, 0)
        self._fetched = 0
        self._link.send("measured", metrics=self._problem.validate(parameters))

    def _free_slot(self) -> int:
        with _Waiting(self):
            slot = self._free.get()
        if slot is None:
            raise StoppedError("stopped while waiting for a gradient slot")
        return slot

    def _next(self, items: Iterator[_Item]) -> _Item | None:
        with _Waiting(self):
            return next(items, None)

    def _wanted(self, order: WorkOrder, found: Iterator[Piece]) -> Iterator[Piece]:
        """`found`, its waiting counted; none of it once the order's evaluation is over."""
        while True:
            with _Waiting(self):
                piece = next(found, None)
            if piece is None:
                return
            if not self._stale(order):
                yield piece

    def _take_waiting(self) -> float:
        waiting_s, self._waiting_s = self._waiting_s, 0.0
        return waiting_s


class _Waiting:
    """Counts the seconds of a block as waiting."""

    def __init__(self, life: _Life) -> None:
        self._life = life

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._life._waiting_s += time.monotonic() - self._started


def _of_one_work(items: Iterator[_Item]) -> Iterator[Piece]:
    """The pieces up to the end of the work."""
    for item in items:
        if not isinstance(item, Piece):
            return
        yield item
