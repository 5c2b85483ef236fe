"""Replicas of given speeds in virtual time: what the coordinator's decisions are worth."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

from engine.config import ClusterConfig
from engine.instructions import Instruction, Record, Send
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.coordinator import Coordinator
from engine.sandblaster.portions import cut_data

LATENCY_S, ADDING_S, TICK_S = 0.0005, 0.001, 0.25
_SHARD, _FIRST = 1, 2


class VirtualCluster:
    """One shard and replicas of which each takes so many seconds for a portion."""

    def __init__(self, seconds: Sequence[float], num_portions: int, **changed) -> None:
        """`seconds` may be changed between evaluations; infinity: it is stopped."""
        self.seconds = list(seconds)
        self.now = 0.0
        self.rows: list[dict] = []
        self.given: list[tuple[int, int]] = []  # replica and number of portions of each work
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = count()
        self._replicas = [_Replica() for _ in seconds]
        cluster = ClusterConfig(num_replicas=len(seconds), num_shards=1, heartbeat_timeout_s=1e9)
        config = SandblasterConfig(minibatch_size=1, **changed)
        portions = cut_data([num_portions], 1)
        self._coordinator = Coordinator(portions, config, cluster, checkpoint="", epoch=1)
        place = {"host": "", "port": 0, "version": 0, "restored_from": "checkpoint"}
        self._tell(_SHARD, {"op": "hello", "role": "shard", "index": 0})
        self._tell(_SHARD, {"op": "serving"} | place)
        for index in range(len(seconds)):
            self._tell(_FIRST + index, {"op": "hello", "role": "replica", "index": index})
        self._tick()

    def stop(self, index: int, at: float) -> None:
        """From then on a replica takes for ever."""

        def happen() -> None:
            self.seconds[index] = math.inf

        self._after(at - self.now, happen)

    def resume(self, index: int, seconds: float) -> None:
        """A replica that was stopped begins what it has in hand now."""
        self.seconds[index] = seconds
        self._begin(index)

    def replace(self, index: int, seconds: float) -> None:
        """Another process takes the place of a replica that was stopped."""
        lost = self._coordinator.lose(_FIRST + index, "killed", self.now)
        self._replicas[index] = _Replica()
        self.seconds[index] = seconds
        self._carry_out(lost)
        self._tell(_FIRST + index, {"op": "hello", "role": "replica", "index": index})

    def evaluate(self, patience_s: float = 50.0) -> float:
        """Seconds of one evaluation; a little more than `patience_s` if it takes longer."""
        started = self.now
        self._carry_out(self._coordinator.evaluate("x", "g", None, self.now))
        while self._coordinator.answer is None and self.now - started <= patience_s:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        return self.now - started

    def _tick(self) -> None:
        self._carry_out(self._coordinator.tick(self.now))
        self._after(TICK_S, self._tick)

    def _tell(self, peer: int, message: dict) -> None:
        message = {"pid": 0, "worker": ""} | message
        self._carry_out(self._coordinator.hear(peer, message, self.now))

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        if math.isfinite(seconds):
            heapq.heappush(self._events, (self.now + seconds, next(self._ids), happen))

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Record("evaluation", values):
                    self.rows.append(dict(values))
                case Send(peer, {"op": "commands"} as message):
                    num_terms = sum(len(terms) for _, _, terms in message["batch"])
                    answer = {"op": "answered", "request": message["request"], "scalars": []}
                    seconds = 2 * LATENCY_S + num_terms * ADDING_S
                    self._after(seconds, lambda peer=peer, m=answer: self._tell(peer, m))
                case Send(peer, {"op": "work"} as message):
                    index = peer - _FIRST
                    self.given.append((index, len(message["portions"])))
                    self._after(LATENCY_S, lambda k=index, m=message: self._order(k, m))

    def _order(self, index: int, message: dict) -> None:
        replica = self._replicas[index]
        replica.orders.append(message)
        replica.newest = message["evaluation"]
        if not replica.busy:
            self._begin(index)

    def _begin(self, index: int) -> None:
        """The next order, whose evaluation still matters."""
        replica = self._replicas[index]
        while replica.orders and replica.orders[0]["evaluation"] < replica.newest:
            replica.orders.popleft()
        replica.busy = bool(replica.orders)
        if replica.busy:
            order = replica.orders.popleft()
            self._compute(index, order, len(order["portions"]), self.now)

    def _compute(self, index: int, order: dict, num_left: int, began: float) -> None:
        """One portion after another, unless its evaluation is over."""
        stale = order["evaluation"] < self._replicas[index].newest
        if num_left and not stale:
            seconds = self.seconds[index]
            self._after(seconds, lambda: self._compute(index, order, num_left - 1, began))
            return
        if not stale:
            fields = {"work": order["work"], "evaluation": order["evaluation"], "slot": 0}
            fields |= {"losses": [1.0] * len(order["portions"])}
            took_s = self.now - began
            times = {"took_s": took_s, "computing_s": took_s, "waiting_s": 0.0}
            message = {"op": "sum"} | fields | times
            self._after(LATENCY_S, lambda: self._tell(_FIRST + index, message))
        self._begin(index)


class _Replica:
    def __init__(self) -> None:
        self.orders: deque[dict] = deque()
        self.newest = 0
        self.busy = False
