"""What goes wrong in a run in one process: scripted at named points or drawn from a seed."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

Kind = Literal[
    "kill_replica",  # before its next instruction; its next life begins at once
    "kill_shard",  # while it applies a push; its successor finishes that; the reply is lost
    "lose_request",  # the replica sends the push again
    "lose_reply",  # the shard has applied the push, the replica sends it again
    "duplicate",  # the push arrives twice
    "reorder",  # the push arrives some time later, after it was sent again or its sender has died
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class FaultPlan:
    """Decides what fails, and counts it. A step is one mini-batch of one replica."""

    def __init__(self, rates: Mapping[Kind, float] | None = None, seed: int = 0) -> None:
        """Plan nothing but, at each chance, each kind with its probability in `rates`."""
        self._rates = dict(rates or {})
        self._scripted: set[tuple[Kind, int, int]] = set()
        self._rng = random.Random(seed)
        self.fired: Counter[str] = Counter()

    def fail_at(self, replica: int, step: int, kind: Kind = "kill_replica") -> "FaultPlan":
        """Let `kind` happen once, to `replica` when it has done `step` steps; return the plan."""
        self._scripted.add((kind, replica, step))
        return self

    def fires(self, kind: Kind, replica: int, step: int) -> bool:
        """True if `kind` happens to this replica now."""
        place = (kind, replica, step)
        if place in self._scripted:
            self._scripted.discard(place)
        elif self._rng.random() >= self._rates.get(kind, 0.0):
            return False
        self.fired[kind] += 1
        return True

    def draw(self, below: int) -> int:
        """A number in [0, below), where a fault leaves something open."""
        return self._rng.randrange(below)
