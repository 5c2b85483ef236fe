"""L-BFGS directions from inner products alone (vector-free L-BFGS)."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from engine.batch.history import Proposal
from engine.batch.names import s, spare, y
from engine.batch.program import Ask
from engine.batch.vector import Combine, Command, Products


@dataclass(frozen=True)
class Gram:
    """All inner products of the pairs and g: a direction needs no round trip.

    Chen, Wang & Zhou 2014, "Large-scale L-BFGS using MapReduce": the two loops run on the
    direction's coefficients in the basis (s..., y..., g).
    """

    slots: tuple[int, ...]
    lengths: tuple[float, ...]  # s is the vector in the slot times this
    products: tuple[tuple[float, ...], ...]  # (2k + 1, 2k + 1) for k pairs

    @classmethod
    def at(cls, square: float) -> "Gram":
        return cls((), (), ((square,),))

    @property
    def square(self) -> float:
        return self.products[-1][-1]

    @property
    def place_of_slope(self) -> int:
        k = len(self.slots)
        return 2 * (2 * k + 3) + 2 * k  # the third row's first new column

    def questions(self, grad: str) -> tuple[Command, ...]:
        slot = spare(self.slots)
        new = (s(slot), y(slot), grad)
        return (Products(new, (*_basis(self.slots), *new)),)

    def learn(
        self, answers: Sequence[float], length: float, history_length: int, epsilon: float
    ) -> "Gram":
        slot = spare(self.slots)
        old, new = _basis(self.slots), (s(slot), y(slot), "g")
        table = {
            (a, b): value
            for a, row in zip(old, self.products, strict=False)
            for b, value in zip(old, row, strict=False)
        }
        scale = dict(zip(map(s, (*self.slots, slot)), (*self.lengths, length), strict=True))
        pairs = ((a, b) for a in new for b in (*old, *new))
        for (a, b), value in zip(pairs, answers, strict=True):
            table[a, b] = table[b, a] = scale.get(a, 1.0) * scale.get(b, 1.0) * value
        slots, lengths = self.slots, self.lengths
        if table[s(slot), y(slot)] > epsilon * table[y(slot), y(slot)]:
            slots = (*slots, slot)[-history_length:]
            lengths = (*lengths, length)[-history_length:]
        basis = (*_basis(slots), "g")
        return Gram(slots, lengths, tuple(tuple(table[a, b] for b in basis) for a in basis))

    def forget(self) -> "Gram":
        return Gram.at(self.square)

    def propose(self, grad: str, target: str) -> Ask[Proposal]:
        coefficients = self.coefficients()
        slope = sum(map(mul, coefficients, self.products[-1]))
        scales = (*self.lengths, *(1.0 for _ in self.slots), 1.0)
        scaled = map(mul, coefficients, scales)
        terms = tuple(zip(scaled, (*_basis(self.slots), grad), strict=True))
        return Proposal((Combine(target, terms),), slope)
        yield  # a program without instructions

    def coefficients(self) -> tuple[float, ...]:
        """Of -H g in the basis (s..., y..., g); the two loops of algorithm 7.4."""
        k = len(self.slots)
        q = [0.0] * (2 * k) + [1.0]
        alphas = [0.0] * k
        for i in reversed(range(k)):
            alphas[i] = self._times(q, i) / self.products[i][k + i]
            q[k + i] -= alphas[i]
        if k:
            gamma = self.products[k - 1][2 * k - 1] / self.products[2 * k - 1][2 * k - 1]
            q = [gamma * coefficient for coefficient in q]
        for i in range(k):
            q[i] += alphas[i] - self._times(q, k + i) / self.products[i][k + i]
        return tuple(-coefficient for coefficient in q)

    def _times(self, coefficients: Sequence[float], row: int) -> float:
        total: float = sum(map(mul, coefficients, self.products[row]))
        return total


def _basis(slots: Sequence[int]) -> tuple[str, ...]:
    return (*map(s, slots), *map(y, slots))
