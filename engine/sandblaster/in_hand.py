"""Works that replicas have in hand, and when they will be done with them. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.sandblaster.paces import Paces


class Work(NamedTuple):
    """Portions that one replica computes and sums up, by their numbers."""

    id: int
    portions: tuple[int, ...]
    backup: bool


class InHand:
    """What each replica was given and has not answered, in the order in which it does it."""

    def __init__(self, paces: Paces) -> None:
        """Start with nothing given out; `paces` are learnt from the answers."""
        self._paces = paces
        self._works: dict[int, list[Work]] = {}
        self._since: dict[int, float] = {}  # when a replica began the first of its works

    def __iter__(self) -> Iterator[tuple[int, Work]]:
        """Every work with who has it."""
        return ((replica, work) for replica, works in self._works.items() for work in works)

    def works(self, replica: int) -> Sequence[Work]:
        """Of one replica, in its order."""
        return self._works.get(replica, ())

    def num_portions(self, replica: int) -> int:
        """In all works of a replica."""
        return sum(len(work.portions) for work in self.works(replica))

    def holders(self, portion: int) -> set[int]:
        """The replicas that work on a portion."""
        return {replica for replica, work in self if portion in work.portions}

    def give(self, replica: int, work: Work, now: float) -> None:
        """A replica gets one more work."""
        works = self._works.setdefault(replica, [])
        if not works:
            self._since[replica] = now
        works.append(work)

    def take(self, replica: int, work_id: int, took_s: float, now: float) -> Work | None:
        """A replica has answered, after computing for `took_s`; None if it had no such work."""
        work = next((work for work in self.works(replica) if work.id == work_id), None)
        if work is not None:
            self._works[replica].remove(work)
            self._since[replica] = now
            self._paces.learn(replica, len(work.portions), took_s)
        return work

    def drop(self, replica: int) -> list[Work]:
        """A replica is gone; return what it had."""
        return self._works.pop(replica, [])

    def end(self, now: float) -> None:
        """Nobody needs what is still in hand: all that it tells is who is late."""
        for replica, works in self._works.items():
            if works:
                self._paces.at_least(replica, self.pace(replica, now))

    def pace(self, replica: int, now: float) -> float:
        """Seconds a portion; who is late is expected to be late as long again."""
        pace = self._paces.of(replica)
        if works := self.works(replica):
            late = (now - self._since[replica]) / len(works[0].portions) - pace
            return pace + 2 * max(late, 0.0)
        return pace

    def done_at(self, replica: int, now: float, work: Work | None = None) -> float:
        """When a replica will have done all that it has, or all up to `work`."""
        works = self.works(replica)
        if not works:
            return now
        upto = works.index(work) + 1 if work else len(works)
        num_portions = sum(len(each.portions) for each in works[:upto])
        return self._since[replica] + num_portions * self.pace(replica, now)
