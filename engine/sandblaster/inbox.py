"""What the coordinator has told a replica: orders to carry out, slots that are free again."""

import logging
import queue
from collections.abc import Iterator
from typing import NamedTuple

from engine.coordinator_link import CoordinatorLink
from engine.frames import Message
from engine.link import Directory, ShardAddress, StoppedError
from engine.sandblaster.work import WorkOrder
from engine.segment import NUM_SLOTS

log = logging.getLogger(__name__)


class Validate(NamedTuple):
    """Measure a point on held-out data."""

    point: str


class Inbox:
    """Filled by a thread that listens; emptied by the one that reads and the one that computes."""

    def __init__(self, directory: Directory) -> None:
        """Start empty, all slots free; shards that move are entered in `directory`."""
        self._directory = directory
        self._orders: queue.Queue[WorkOrder | Validate | None] = queue.Queue()
        self._free: queue.Queue[int | None] = queue.Queue()
        self._newest = 0  # evaluation that the coordinator wants
        self.stopped = False  # told so by the coordinator
        for slot in range(NUM_SLOTS):
            self._free.put(slot)

    def listen(self, link: CoordinatorLink) -> None:
        """Take in what the coordinator says until it hangs up."""
        try:
            while (message := link.receive())["op"] != "stop":
                self._hear(message)
            self.stopped = True
        except OSError as error:
            log.debug("the coordinator hung up: %s", error)
        self._directory.stop()
        self._orders.put(None)
        self._free.put(None)

    def orders(self) -> Iterator[WorkOrder | Validate]:
        """Orders as they come, until the coordinator hangs up."""
        while (order := self._orders.get()) is not None:
            yield order

    def stale(self, order: WorkOrder) -> bool:
        """Whether the coordinator has gone on to a later evaluation."""
        return order.evaluation < self._newest

    def take_slot(self) -> int:
        """A gradient slot that may be overwritten; waits for one.

        Raises:
            StoppedError: the coordinator has hung up.
        """
        slot = self._free.get()
        if slot is None:
            raise StoppedError("stopped while waiting for a gradient slot")
        return slot

    def give_back(self, slot: int) -> None:
        """A slot was taken for nothing."""
        self._free.put(slot)

    def _hear(self, message: Message) -> None:
        match message["op"]:
            case "work":
                order = WorkOrder.of(message)
                self._newest = order.evaluation
                self._orders.put(order)
            case "validate":
                self._orders.put(Validate(str(message["point"])))
            case "released":
                self._free.put(int(message["slot"]))
            case "shard":
                self._directory.move(message["index"], ShardAddress(*message["address"]))
