"""Which samples of which epoch are leased, to whom, and which ones count: each exactly once.

A pure state machine: no clock, no I/O. A *unit* is what the problem reads from (one tar).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple


class Lease(NamedTuple):
    """Samples [start, stop) of one unit in one epoch, lent to one holder."""

    id: int
    epoch: int
    unit: int
    start: int
    stop: int


class Range(NamedTuple):
    """Samples [start, stop) of one unit in one epoch."""

    epoch: int
    unit: int
    start: int
    stop: int


class Progress(NamedTuple):
    """How far a holder's applied pushes reach: up to sample `upto` of lease `lease`."""

    lease: int
    upto: int


#: A replica's life: (replica, incarnation).
Holder = tuple[int, int]


@dataclass(frozen=True)
class _Entry:
    lease: Lease
    holder: Holder
    counted_to: int


class Ledger:
    """Lends out every sample of every epoch and counts each one once, whatever dies.

    A holder works through its leases in the order it got them. `count` moves its mark; `settle`
    ends a dead holder: what it had applied counts, the rest is lent again.
    """

    def __init__(
        self,
        unit_sizes: Sequence[int],
        num_epochs: int,
        *,
        lease_size: int,
        seed: int = 0,
        counted: Sequence[Range] = (),
    ) -> None:
        """Start with `counted` (from a checkpoint) already done.

        Args:
            lease_size: largest number of samples lent at once.
        """
        self._unit_sizes = tuple(unit_sizes)
        self._num_epochs = num_epochs
        self._lease_size = lease_size
        self._seed = seed
        self._entries: dict[int, _Entry] = {}
        self._open: dict[Holder, list[int]] = {}
        self._done = _merged(counted)
        self._num_counted = sum(r.stop - r.start for r in self._done)
        self._epoch = 0
        self._next_id = 1
        self._pending: list[Range] = self._remaining(0)

    @property
    def num_total(self) -> int:
        """Samples of the whole run: all epochs."""
        return sum(self._unit_sizes) * self._num_epochs

    @property
    def num_counted(self) -> int:
        """Samples that count so far, over all epochs."""
        return self._num_counted

    @property
    def num_leased(self) -> int:
        """Samples that count or are being worked on."""
        open_entries = (e for holder in self._open for e in self._open_of(holder))
        return self._num_counted + sum(e.lease.stop - e.counted_to for e in open_entries)

    @property
    def complete(self) -> bool:
        """True when every sample of every epoch counts."""
        return self.num_counted == self.num_total

    def lease(self, holder: Holder) -> Lease | None:
        """Lend the next samples, or None when all are lent (some may come back)."""
        while not self._pending and self._epoch + 1 < self._num_epochs:
            self._epoch += 1
            self._pending = self._remaining(self._epoch)
        if not self._pending:
            return None
        epoch, unit, start, stop = self._pending.pop(0)
        if stop > (end := self._cell(start) + self._lease_size):
            self._pending.insert(0, Range(epoch, unit, end, stop))
            stop = end
        lease = Lease(self._next_id, epoch, unit, start, stop)
        self._next_id += 1
        self._entries[lease.id] = _Entry(lease, holder, start)
        self._open.setdefault(holder, []).append(lease.id)
        return lease

    def fraction(self, lease: Lease) -> float:
        """How much of the run was lent before `lease`, just made: a part of a lease that was cut
        short by the end of a run or of its holder stands where the whole of it stood.
        """
        before = self.num_leased - (lease.stop - self._cell(lease.start))
        return max(0, before) / self.num_total

    def _cell(self, start: int) -> int:
        """Where a lease begins, in a unit nobody has worked on, that contains sample `start`."""
        return start - start % self._lease_size

    def count(self, holder: Holder, progress: Progress) -> None:
        """Count the holder's samples up to `progress`, and all of its earlier leases."""
        for entry in self._open_of(holder):
            if entry.lease.id > progress.lease:
                break
            own = entry.lease.id == progress.lease
            upto = progress.upto if own else entry.lease.stop
            self._move(entry, max(entry.counted_to, upto))

    def settle(self, holder: Holder, progress: Progress | None) -> int:
        """End a holder: count what it had applied, lend the rest again; return the rest's size."""
        if progress is not None:
            self.count(holder, progress)
        returned = [
            Range(e.lease.epoch, e.lease.unit, e.counted_to, e.lease.stop)
            for e in self._open_of(holder)
        ]
        self._open.pop(holder, None)
        self._pending[:0] = returned
        return sum(r.stop - r.start for r in returned)

    def counted(self) -> tuple[Range, ...]:
        """All samples that count now, as merged ranges: what a checkpoint stores."""
        return tuple(_merged(self._counted_now()))

    def mark(self) -> frozenset[int]:
        """Leases closed by now; taken before a snapshot is asked for, see `counted_at`."""
        return frozenset(self._entries) - {id for ids in self._open.values() for id in ids}

    def counted_at(
        self, mark: frozenset[int], progress: Mapping[Holder, Progress]
    ) -> tuple[Range, ...]:
        """Samples contained in a snapshot that shards took after `mark`.

        Args:
            mark: leases already closed before the shards were asked.
            progress: what the snapshot itself says each holder had applied.
        """
        ranges = list(self._done)
        for entry in self._entries.values():
            lease = entry.lease
            stop = entry.counted_to
            if lease.id not in mark:
                stop = _applied_to(lease, progress.get(entry.holder, Progress(0, 0)))
            ranges.append(Range(lease.epoch, lease.unit, lease.start, stop))
        return tuple(_merged(ranges))

    def _counted_now(self) -> list[Range]:
        entries = self._entries.values()
        return self._done + [
            Range(e.lease.epoch, e.lease.unit, e.lease.start, e.counted_to) for e in entries
        ]

    def _open_of(self, holder: Holder) -> list[_Entry]:
        return [self._entries[id] for id in self._open.get(holder, ())]

    def _move(self, entry: _Entry, counted_to: int) -> None:
        counted_to = min(counted_to, entry.lease.stop)
        self._num_counted += counted_to - entry.counted_to
        self._entries[entry.lease.id] = replace(entry, counted_to=counted_to)
        if counted_to == entry.lease.stop:
            self._open[entry.holder].remove(entry.lease.id)

    def _remaining(self, epoch: int) -> list[Range]:
        """Uncounted ranges of one epoch, units in an order drawn from (seed, epoch)."""
        order = list(range(len(self._unit_sizes)))
        random.Random(self._seed * 1_000_003 + epoch).shuffle(order)
        done = [r for r in self._done if r.epoch == epoch]
        return [gap for unit in order for gap in self._gaps(epoch, unit, done)]

    def _gaps(self, epoch: int, unit: int, done: list[Range]) -> list[Range]:
        gaps, start = [], 0
        for counted in sorted(r for r in done if r.unit == unit):
            gaps.append(Range(epoch, unit, start, counted.start))
            start = counted.stop
        gaps.append(Range(epoch, unit, start, self._unit_sizes[unit]))
        return [gap for gap in gaps if gap.start < gap.stop]


def applied_ranges(
    counted: Sequence[Range],
    leases: Sequence[tuple[Holder, Lease]],
    progress: Mapping[Holder, Progress],
) -> tuple[Range, ...]:
    """`counted`, and what the holders of `leases` have applied since."""
    since = [
        Range(
            lease.epoch,
            lease.unit,
            lease.start,
            _applied_to(lease, progress.get(holder, Progress(0, 0))),
        )
        for holder, lease in leases
    ]
    return tuple(_merged([*counted, *since]))


def num_minibatches(counted: Sequence[Range], size: int) -> int:
    """Mini-batches of `size` samples in merged ranges, each of which begins with a whole one."""
    return sum(-(-(r.stop - r.start) // size) for r in counted)


def _applied_to(lease: Lease, reached: Progress) -> int:
    """Up to which sample of `lease` a holder that has got as far as `reached` has applied."""
    if lease.id > reached.lease:
        return lease.start
    if lease.id == reached.lease:
        return min(max(reached.upto, lease.start), lease.stop)
    return lease.stop


def _merged(ranges: Sequence[Range]) -> list[Range]:
    merged: list[Range] = []
    for r in sorted(r for r in ranges if r.start < r.stop):
        last = merged[-1] if merged else None
        if last and (last.epoch, last.unit) == (r.epoch, r.unit) and r.start <= last.stop:
            merged[-1] = last._replace(stop=max(last.stop, r.stop))
        else:
            merged.append(r)
    return merged
