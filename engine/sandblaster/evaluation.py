"""One evaluation of loss and gradient over a batch: which sums count, and how they are added. Pure.

Replicas leave their sums in memory that the shards read. The shards add them by ordinary commands,
so a sum counts on all shards or on none, and a killed shard carries the command out again. Two
accumulators take turns, because a command must not write what it reads.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from engine.batch.vector import Combine, Command
from engine.frames import Message
from engine.run_spec import segment_name
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.portion_ledger import PortionLedger
from engine.sandblaster.portions import Portion

ACCRUED = ("accrued-0", "accrued-1")


class Slot(NamedTuple):
    """A gradient slot of one life of a replica."""

    replica: int
    incarnation: int
    slot: int


def slot_name(slot: Slot) -> str:
    """The name by which shards know the vector in a replica's slot."""
    return f"{segment_name(slot.replica, slot.incarnation)}.gradient-{slot.slot}"


class Evaluation:
    """Hands out the portions of one batch and gathers loss and gradient."""

    def __init__(
        self,
        id: int,
        point: str,
        grad: str | None,
        portions: Sequence[Portion],
        ledger: PortionLedger,
        config: SandblasterConfig,
    ) -> None:
        """Begin; `grad` is the vector to leave the mean gradient in, None: only the loss counts."""
        self.id = id
        self.point = point
        self.grad = grad
        self.ledger = ledger
        self.num_samples = sum(portion.num_samples for portion in portions)
        self._portions = {portion.number: portion for portion in portions}
        self._works: dict[int, tuple[int, ...]] = {}
        self._losses: dict[int, float] = {}  # portion -> sum of its samples' losses
        self._window = config.order_window if config.deterministic else None
        self._ready: dict[int, Slot] = {}  # first portion -> accepted sum, not added yet
        self._order = [portion.number for portion in portions]
        self._place = {number: place for place, number in enumerate(self._order)}
        self._num_added = 0  # portions, of `_order`, that the accumulator holds (in order only)
        self._held: set[int] = set()  # portions whose sum waits on the shards for its turn
        self._accrued: str | None = None
        self._adding: list[Slot] = []  # slots that the commands under way read
        self._waiting = False  # for commands under way
        self._finishing = False
        self.finished = False

    @property
    def loss(self) -> float:
        """Mean loss over the batch; the sum does not depend on who computed what."""
        return math.fsum(self._losses.values()) / self.num_samples

    def work_for(self, replica: int, workers: Sequence[int], now: float) -> Message | None:
        """What to tell a replica, one of `workers`, if there is something for it to do."""
        work = self.ledger.assign(replica, workers, now, self._limit())
        if work is None:
            return None
        self._works[work.id] = work.portions
        return {
            "op": "work",
            "work": work.id,
            "evaluation": self.id,
            "point": self.point,
            "gradient": self.grad is not None,
            "portions": [self._portions[number][1:] for number in work.portions],
        }

    def samples_in(self, work: int) -> int:
        """Number of samples of a work."""
        return sum(self._portions[number].num_samples for number in self._works[work])

    def lose(self, replica: int) -> int:
        """A replica is gone; return how many samples will be given out again."""
        return sum(self._portions[number].num_samples for number in self.ledger.lose(replica))

    def take_sum(self, replica: int, incarnation: int, message: Message, now: float) -> Slot | None:
        """A replica's sum has arrived; return its slot if it is free again at once."""
        work = int(message["work"])
        slot = None
        if message["slot"] is not None:
            slot = Slot(replica, incarnation, int(message["slot"]))
        if message["evaluation"] != self.id:
            return slot
        if not self.ledger.finish(replica, work, message["took_s"], now):
            return slot
        portions = self._works[work]
        self._losses.update(zip(portions, message["losses"], strict=True))
        if slot:
            self._ready[portions[0]] = slot
        return None

    def next_commands(self) -> list[Command]:
        """What the shards are to do now; nothing while they are at it."""
        if self._waiting or self.finished:
            return []
        if self.grad is None:
            self.finished = self.ledger.complete
            return []
        commands = self._additions()
        if self.ledger.complete:  # then these were the last ones
            assert self._accrued is not None
            commands.append(Combine(self.grad, ((1.0 / self.num_samples, self._accrued),)))
            self._finishing = True
        self._waiting = bool(commands)
        return commands

    def commands_done(self) -> list[Slot]:
        """The shards have carried the commands out; return the slots that are free again."""
        self._waiting = False
        self.finished = self._finishing
        freed, self._adding = self._adding, []
        return freed

    def _additions(self) -> list[Command]:
        if self._window is None:
            names = [slot_name(slot) for slot in self._ready.values()]
            self._adding = list(self._ready.values())
            self._ready.clear()
            return self._add(names)
        return self._in_order()

    def _in_order(self) -> list[Command]:
        """Add the sums whose turn it is; have the shards keep the others."""
        names: list[str] = []
        while self._num_added < len(self._order):
            portion = self._order[self._num_added]
            if portion in self._held:
                self._held.remove(portion)
                names.append(self._held_name(portion))
            elif portion in self._ready:
                slot = self._ready.pop(portion)
                self._adding.append(slot)
                names.append(slot_name(slot))
            else:
                break
            self._num_added += 1
        commands = self._add(names)
        for portion, slot in self._ready.items():
            commands.append(Combine(self._held_name(portion), ((1.0, slot_name(slot)),)))
            self._held.add(portion)
            self._adding.append(slot)
        self._ready.clear()
        return commands

    def _held_name(self, portion: int) -> str:
        assert self._window is not None
        return f"held-{self._place[portion] % (2 * self._window)}"

    def _add(self, names: Sequence[str]) -> list[Command]:
        if not names:
            return []
        target = ACCRUED[self._accrued == ACCRUED[0]]
        before = [self._accrued] if self._accrued else []
        self._accrued = target
        return [Combine(target, tuple((1.0, name) for name in [*before, *names]))]

    def _limit(self) -> int | None:
        """In order, no portion is given out that the shards would have to keep for long."""
        if self._window is None or self.grad is None:
            return None
        last = min(self._num_added + self._window, len(self._order)) - 1
        return self._order[last] + 1
