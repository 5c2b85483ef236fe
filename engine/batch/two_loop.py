"""L-BFGS directions by the two-loop recursion on vectors, as in the DistBelief paper."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.batch.history import Proposal
from engine.batch.names import s, spare, twin, y
from engine.batch.program import Ask, run
from engine.batch.vector import Combine, Command, Products, dot

#: q of the recursion, and after it r, in turns with its twin.
SCRATCH = "scratch0"


@dataclass(frozen=True)
class Pairs:
    """The pairs' own products only: a direction takes 2k + 1 round trips for k pairs."""

    slots: tuple[int, ...]
    lengths: tuple[float, ...]  # s is the vector in the slot times this
    curvatures: tuple[tuple[float, float], ...]  # (s.y, y.y) of each pair
    square: float

    @classmethod
    def at(cls, square: float) -> "Pairs":
        return cls((), (), (), square)

    @property
    def place_of_slope(self) -> int:
        return 2

    def questions(self, grad: str) -> tuple[Command, ...]:
        slot = spare(self.slots)
        return (Products((y(slot),), (s(slot), y(slot))), Products((grad,), (s(slot), grad)))

    def learn(
        self, answers: Sequence[float], length: float, history_length: int, epsilon: float
    ) -> "Pairs":
        sy, yy, _, square = answers
        sy *= length
        if not sy > epsilon * yy:
            return Pairs(self.slots, self.lengths, self.curvatures, square)
        slots = (*self.slots, spare(self.slots))[-history_length:]
        lengths = (*self.lengths, length)[-history_length:]
        return Pairs(slots, lengths, (*self.curvatures, (sy, yy))[-history_length:], square)

    def forget(self) -> "Pairs":
        return Pairs.at(self.square)

    def propose(self, grad: str, target: str) -> Ask[Proposal]:
        """Two loops, an inner product a round trip (Nocedal & Wright 2006, algorithm 7.4)."""
        # sy / length and alpha * length: of the vector in the slot, that is.
        pairs = [
            (s(slot), y(slot), sy / length, length)
            for slot, length, (sy, _) in zip(self.slots, self.lengths, self.curvatures, strict=True)
        ]
        q, r, alphas = grad, SCRATCH, list[float]()
        pending: tuple[Command, ...] = ()
        for s_i, y_i, sy, _ in reversed(pairs):
            (sq,) = yield from run(*pending, dot(s_i, q))
            alphas.append(sq / sy)
            pending = (Combine(r, ((1.0, q), (-alphas[-1], y_i))),)
            q, r = r, twin(r)
        # r = gamma q is not written: gamma goes into the first step of the second loop.
        scale = self.curvatures[-1][0] / self.curvatures[-1][1] if pairs else 1.0
        for (s_i, y_i, sy, length), alpha in zip(pairs, reversed(alphas), strict=True):
            (yq,) = yield from run(*pending, dot(y_i, q))
            pending = (Combine(r, ((scale, q), (alpha * length - scale * yq / sy, s_i))),)
            q, r, scale = r, twin(r), 1.0
        (slope,) = yield from run(*pending, Combine(target, ((-1.0, q),)), dot(target, grad))
        return Proposal((), slope)
