"""Which replica works on which portion of a batch, and whose results count. Pure.

A free replica is given the next portions, so fast replicas do more. A *work* is what it answers
with one sum: several portions at first, single ones near the end of the batch. When all are given
out, those still missing are given once more to who would be done with them earlier than who has
them (backup tasks). A sum is accepted or refused as a whole: it counts only if none of its portions
counted before. How long replicas take is estimated; a wrong estimate costs time and nothing else.
"""

import math
from bisect import insort
from collections.abc import Sequence

from engine.sandblaster.forecast import MARGIN, others_are_quicker, share
from engine.sandblaster.in_hand import InHand, Work
from engine.sandblaster.paces import Paces

#: Works that a replica has at a time, so that it reads the next while it computes.
_LOOKAHEAD = 2
#: Part of what is left of the batch, by its share of all replicas' speed, that a replica is given
#: at a time: with all of it, an estimate that is wrong by a little would have others wait for it.
_GIVEN_AT_ONCE = 0.5


class PortionLedger:
    """The portions of one batch: open, being worked on, or accepted."""

    def __init__(
        self,
        portions: Sequence[int],
        owner_of: Sequence[int],
        paces: Paces,
        *,
        max_bundle: int,
        max_copies: int,
    ) -> None:
        """Start with every portion open.

        Args:
            portions: their numbers, rising.
            owner_of: for every portion of the data the replica that has read it before.
            paces: of the replicas, learnt from every answer.
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
        self._in_hand = InHand(paces)
        self._seen: set[int] = set()  # replicas that have been given something
        self._next_id = 1
        self.num_backups = 0
        self.num_backups_won = 0

    @property
    def complete(self) -> bool:
        """Every portion counts."""
        return not self._missing

    @property
    def owner_of(self) -> tuple[int, ...]:
        """The replica that read each portion last: whom to give it next time."""
        return tuple(self._owner_of)

    def assign(
        self, replica: int, workers: Sequence[int], now: float, limit: int | None = None
    ) -> Work | None:
        """Work for a replica, or None while there is none for it.

        Args:
            workers: the replicas that work now, this one among them.
            limit: give no portion numbered so or above.
        """
        size = self._size(replica, workers, now)
        if size and (portions := self._take(replica, size, limit)):
            return self._begin(replica, portions, now, backup=False)
        if self._in_hand.works(replica):
            return None
        portion = self._to_back_up(replica, now)
        return None if portion is None else self._begin(replica, (portion,), now, backup=True)

    def finish(self, replica: int, work_id: int, took_s: float, now: float) -> bool:
        """A sum has arrived; False if it must not count, because some portion of it did.

        Args:
            took_s: seconds that the replica spent on it.
        """
        work = self._in_hand.take(replica, work_id, took_s, now)
        if work is None:
            return False
        if self._spoilt(work):
            self._reopen(work.portions)
            return False
        for portion in work.portions:
            del self._missing[portion]
            self._owner_of[portion] = replica
        self.num_backups_won += work.backup
        if self.complete:
            self._in_hand.end(now)
        return True

    def lose(self, replica: int) -> list[int]:
        """A replica is gone with all that it has not sent; return the portions that reopened."""
        works = self._in_hand.drop(replica)
        return [portion for work in works for portion in self._reopen(work.portions)]

    def _size(self, replica: int, workers: Sequence[int], now: float) -> int:
        """How many open portions a replica should be given now."""
        if not self._num_open or len(self._in_hand.works(replica)) == _LOOKAHEAD:
            return 0
        part = share(replica, workers, self._in_hand, now) * len(self._missing) * _GIVEN_AT_ONCE
        size = int(part) - self._in_hand.num_portions(replica)
        if size < 1:
            return int(self._may_have_one_more(replica, workers, now))
        return min(self._max_bundle, size)

    def _may_have_one_more(self, replica: int, workers: Sequence[int], now: float) -> bool:
        """Whether nobody else should be waited for to take the next portion.

        All get something of each batch, or who was slow would never be seen to be quick again.
        """
        return replica not in self._seen or not others_are_quicker(
            replica, workers, self._in_hand, self._num_open, now
        )

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

    def _begin(self, replica: int, portions: tuple[int, ...], now: float, *, backup: bool) -> Work:
        work = Work(self._next_id, portions, backup)
        self._next_id += 1
        self._in_hand.give(replica, work, now)
        self._seen.add(replica)
        self.num_backups += backup
        return work

    def _to_back_up(self, replica: int, now: float) -> int | None:
        """Of the missing portions with the fewest copies one that will take longest.

        Of those only that this replica will have done, with what else is missing of the same
        work, before who has them (Zaharia et al. 2008, "longest approximate time to end").
        """
        candidates = {}
        for holder, work in self._in_hand:
            missing = [portion for portion in work.portions if portion in self._missing]
            done_at = self._in_hand.done_at(holder, now, work)
            left = math.inf if self._spoilt(work) else done_at - now
            if left <= (len(missing) + MARGIN) * self._in_hand.pace(replica, now):
                continue
            for portion in missing:
                holders = self._in_hand.holders(portion)
                if replica not in holders and len(holders) < self._max_copies:
                    candidates[portion] = (len(holders), -left, work.id, portion)
        return min(candidates, key=lambda p: candidates[p], default=None)

    def _spoilt(self, work: Work) -> bool:
        """Whether its sum will be refused."""
        return not all(portion in self._missing for portion in work.portions)

    def _reopen(self, portions: Sequence[int]) -> list[int]:
        """Open what is missing and in no other hands."""
        reopened = [p for p in portions if p in self._missing and not self._in_hand.holders(p)]
        for portion in reopened:
            insort(self._open.setdefault(self._owner_of[portion], []), portion)
        self._num_open += len(reopened)
        return reopened


def _below(portions: list[int], limit: int | None) -> list[int]:
    if limit is None or not portions or portions[-1] < limit:
        return portions
    return [portion for portion in portions if portion < limit]
