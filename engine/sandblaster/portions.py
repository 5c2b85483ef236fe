"""Which replica works on which portion of the batch, and whose results count. Pure.

A *portion* is a small piece of the batch, much smaller than 1/N of it (Dean et al. 2012, 4.2): a
free replica is given the next one, so fast replicas do more. A *work* is what a replica answers
with one sum: several portions at first, single ones near the end of the batch. When all portions
are given out, those still missing are given once more to whoever is free (backup tasks). A sum is
accepted or refused as a whole: it counts only if none of its portions counted before.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Portion(NamedTuple):
    """Samples [start, stop) of one unit of the data; `number` is its place in the whole data."""

    number: int
    unit: int
    start: int
    stop: int

    @property
    def num_samples(self) -> int:
        return self.stop - self.start


class Work(NamedTuple):
    """Portions that one replica computes and sums up, by their numbers."""

    id: int
    portions: tuple[int, ...]
    backup: bool


def cut_data(unit_sizes: Sequence[int], portion_size: int) -> tuple[Portion, ...]:
    """Cut every unit into portions of `portion_size` samples, the last one of what remains."""
    portions: list[Portion] = []
    for unit, size in enumerate(unit_sizes):
        for start in range(0, size, portion_size):
            stop = min(start + portion_size, size)
            portions.append(Portion(len(portions), unit, start, stop))
    return tuple(portions)


def clipped(portions: Iterable[Portion], start: int, stop: int) -> tuple[Portion, ...]:
    """What lies in samples [start, stop) of the data, numbered through all units."""
    kept, first = [], 0
    for portion in portions:
        low, high = max(start - first, 0), min(stop - first, portion.num_samples)
        if low < high:
            begin = portion.start
            kept.append(portion._replace(start=begin + low, stop=begin + high))
        first += portion.num_samples
    return tuple(kept)


class PortionLedger:
    """The portions of one batch: open, being worked on, or accepted."""

    def __init__(
        self,
        portions: Sequence[int],
        owner_of: Sequence[int],
        *,
        max_bundle: int,
        max_copies: int,
    ) -> None:
        """Start with every portion open.

        Args:
            portions: their numbers, rising.
            owner_of: for every portion of the data the replica that has read it before.
            max_bundle: largest number of portions in one sum.
            max_copies: how many replicas may work on the same portion; 1: no backup tasks.
        """
        self._owner_of = list(owner_of)
        self._max_bundle = max_bundle
        self._max_copies = max_copies
        self._open: dict[int, list[int]] = {}
        for portion in portions:
            self._open.setdefault(self._owner_of[portion], []).append(portion)
        self._num_open = len(portions)
        self._missing = dict.fromkeys(portions)  # not accepted, rising
        self._running: dict[int, tuple[int, Work]] = {}  # work id -> replica and work
        self._next_id = 1
        self.num_backups = 0
        self.num_backups_won = 0

    @property
    def complete(self) -> bool:
        """Every portion counts."""
        return not self._missing

    @property
    def num_open(self) -> int:
        """Portions that nobody works on."""
        return self._num_open

    @property
    def owner_of(self) -> tuple[int, ...]:
        """The replica that read each portion last: whom to give it next time."""
        return tuple(self._owner_of)

    def held_by(self, replica: int) -> int:
        """Number of works that the replica has not answered."""
        return sum(holder == replica for holder, _ in self._running.values())

    def assign(self, replica: int, num_replicas: int, limit: int | None = None) -> Work | None:
        """Work for a replica, or None while there is none.

        Args:
            num_replicas: that work now; the fewer portions are left for each, the smaller a work.
            limit: give no portion numbered so or above.
        """
        if self._num_open:
            size = max(1, min(self._max_bundle, self._num_open // (2 * num_replicas)))
            if portions := self._take(replica, size, limit):
                return self._begin(replica, portions, backup=False)
        portion = self._to_back_up(replica)
        return None if portion is None else self._begin(replica, (portion,), backup=True)

    def finish(self, replica: int, work_id: int) -> bool:
        """A sum has arrived; False if it must not count, because some portion of it did."""
        if work_id not in self._running or self._running[work_id][0] != replica:
            return False
        _, work = self._running.pop(work_id)
        if not all(portion in self._missing for portion in work.portions):
            self._reopen(work.portions)
            return False
        for portion in work.portions:
            del self._missing[portion]
            self._owner_of[portion] = replica
        self.num_backups_won += work.backup
        return True

    def lose(self, replica: int) -> list[int]:
        """A replica is gone with all that it has not sent; return the portions that reopened."""
        lost = [id for id, (holder, _) in self._running.items() if holder == replica]
        works = [self._running.pop(id)[1] for id in lost]
        return [portion for work in works for portion in self._reopen(work.portions)]

    def _take(self, replica: int, size: int, limit: int | None) -> tuple[int, ...]:
        """Own portions in order; without any, the last ones of whom most are left to."""
        own = _below(self._open.get(replica, []), limit)
        if own:
            return self._remove(replica, own[:size])
        others = {owner: _below(mine, limit) for owner, mine in self._open.items()}
        victim = max(others, key=lambda owner: (len(others[owner]), -owner))
        found = others[victim]
        # With a limit the sums are wanted in order: the first ones first.
        return self._remove(victim, found[-size:] if limit is None else found[:size])

    def _remove(self, owner: int, portions: Sequence[int]) -> tuple[int, ...]:
        mine = self._open[owner]
        if portions:
            first = mine.index(portions[0])
            del mine[first : first + len(portions)]
            self._num_open -= len(portions)
        return tuple(portions)

    def _begin(self, replica: int, portions: tuple[int, ...], *, backup: bool) -> Work:
        work = Work(self._next_id, portions, backup)
        self._next_id += 1
        self._running[work.id] = (replica, work)
        self.num_backups += backup
        return work

    def _to_back_up(self, replica: int) -> int | None:
        """The missing portion with the fewest copies, first the one given out longest ago."""
        candidates = {}
        for id, (_, work) in self._running.items():
            for portion in work.portions:
                if portion in self._missing and portion not in candidates:
                    holders = self._holders(portion)
                    if replica not in holders and len(holders) < self._max_copies:
                        candidates[portion] = (len(holders), id, portion)
        return min(candidates, key=lambda p: candidates[p], default=None)

    def _holders(self, portion: int) -> set[int]:
        return {who for who, work in self._running.values() if portion in work.portions}

    def _reopen(self, portions: Sequence[int]) -> list[int]:
        """Open what is missing and in no other hands."""
        reopened = [p for p in portions if p in self._missing and not self._holders(p)]
        for portion in reopened:
            insort(self._open.setdefault(self._owner_of[portion], []), portion)
        self._num_open += len(reopened)
        return reopened


def _below(portions: list[int], limit: int | None) -> list[int]:
    if limit is None or not portions or portions[-1] < limit:
        return portions
    return [portion for portion in portions if portion < limit]
