"""Replicas, shards and a ledger in one random history, with an oracle that keeps every sample."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.ledger import Holder, Lease, Ledger, Progress, Range

UNIT_SIZES = (7, 1, 12, 5)
NUM_EPOCHS = 2
NUM_SHARDS = 2
NOTHING = Progress(0, 0)
#: (epoch, unit, index)
Sample = tuple[int, int, int]
EVERY_SAMPLE = {
    (epoch, unit, i)
    for epoch in range(NUM_EPOCHS)
    for unit, size in enumerate(UNIT_SIZES)
    for i in range(size)
}


def samples_of(ranges: Sequence[Range]) -> list[Sample]:
    """Every sample of `ranges`, as often as they hold it."""
    return [(r.epoch, r.unit, i) for r in ranges for i in range(r.start, r.stop)]


@dataclass
class Life:
    """One life of one replica: its leases, and the push that is on its way."""

    holder: Holder
    leases: list[Lease] = field(default_factory=list)
    upto: int = 0  # of leases[0]
    pushed: Range | None = None
    progress: Progress = NOTHING
    missing: list[int] = field(default_factory=list)  # shards that have yet to apply `pushed`
    acknowledged: Progress = NOTHING


@dataclass
class Shard:
    """What one shard has applied."""

    progress: dict[Holder, Progress] = field(default_factory=dict)
    applied: set[Sample] = field(default_factory=set)


class LedgerWorld:
    """Draws one event after the other; every event is one that can happen in a real run."""

    def __init__(self, seed: int, num_replicas: int, counted: Sequence[Range] = ()) -> None:
        self.rng = random.Random(seed)
        lease_size = self.rng.randint(1, 6)
        self.ledger = Ledger(
            UNIT_SIZES, NUM_EPOCHS, lease_size=lease_size, seed=seed, counted=counted
        )
        self.shards = [Shard() for _ in range(NUM_SHARDS)]
        self.pushes: dict[Sample, set[tuple[Holder, Progress]]] = defaultdict(set)
        self.kills = 0
        self.lives = [Life((replica, 1)) for replica in range(num_replicas)]

    def run(self) -> None:
        """Go on until every sample counts."""
        for _ in range(100_000):
            if self.ledger.complete:
                return
            self.step()
        raise AssertionError("the ledger never became complete")

    def step(self) -> None:
        """One event."""
        index = self.rng.randrange(len(self.lives))
        life = self.lives[index]
        chance = self.rng.random()
        if chance < 0.03:
            self.kill(index)
        elif chance < 0.25 or not life.leases:
            if lease := self.ledger.lease(life.holder):
                life.upto = lease.start if not life.leases else life.upto
                life.leases.append(lease)
            self.ledger.count(life.holder, life.acknowledged)
        elif life.missing:
            self.apply(life)
        else:
            self.push(life)

    def push(self, life: Life) -> None:
        """Finish a mini-batch of the first lease and start its push."""
        lease = life.leases[0]
        stop = min(lease.stop, life.upto + self.rng.randint(1, 3))
        life.pushed = Range(lease.epoch, lease.unit, life.upto, stop)
        life.progress = Progress(lease.id, stop)
        life.missing = self.rng.sample(range(NUM_SHARDS), NUM_SHARDS)
        life.upto = stop

    def apply(self, life: Life) -> None:
        """Let one shard apply the push; the last one's reply acknowledges it."""
        assert life.pushed is not None
        shard = self.shards[life.missing.pop()]
        shard.progress[life.holder] = life.progress
        for sample in samples_of([life.pushed]):
            shard.applied.add(sample)
            self.pushes[sample].add((life.holder, life.progress))
        if life.missing:
            return
        life.acknowledged = life.progress
        if life.upto == life.leases[0].stop:
            life.leases.pop(0)
            life.upto = life.leases[0].start if life.leases else 0

    def kill(self, index: int) -> None:
        """Fence a replica wherever it is in its work, and let its next life begin."""
        holder = self.lives[index].holder
        applied = [shard.progress[holder] for shard in self.shards if holder in shard.progress]
        reached = max(applied, default=None)
        self.ledger.settle(holder, reached)
        self.kills += 1
        self.lives[index] = Life((holder[0], holder[1] + 1))

    def snapshot(self) -> tuple[tuple[Range, ...], set[Sample]]:
        """Copies by each shard, at moments of their own: what the ledger says, and what is held."""
        mark = self.ledger.mark()
        furthest: dict[Holder, Progress] = defaultdict(lambda: NOTHING)
        held: set[Sample] = set()
        for shard in self.shards:
            self.some_steps()
            held |= shard.applied
            for holder, progress in shard.progress.items():
                furthest[holder] = max(furthest[holder], progress)
        self.some_steps()
        return self.ledger.counted_at(mark, furthest), held

    def some_steps(self) -> None:
        for _ in range(self.rng.randrange(12)):
            self.step()

    def num_pushes(self) -> dict[Sample, int]:
        """How many different pushes brought each sample to the shards."""
        return {sample: len(pushes) for sample, pushes in self.pushes.items()}
