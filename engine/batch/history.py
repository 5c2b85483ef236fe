"""The curvature pairs of L-BFGS as names and inner products: what both forms have in common.

Symbols of Nocedal & Wright 2006: s = x' - x, y = g' - g. The estimate of the inverse Hessian
starts from gamma I with gamma = s.y / y.y of the newest pair (equation 7.20).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from engine.batch.program import Ask
from engine.batch.vector import Command

#: The vector that holds the direction.
DIRECTION = "direction"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A direction -H g that `commands`, not yet carried out, will write."""

    commands: tuple[Command, ...]
    slope: float  # direction . g


class History(Protocol):
    """The last m curvature pairs, oldest first, at a gradient g."""

    @classmethod
    def at(cls, square: float) -> Self:
        """No pairs yet, at a gradient with g . g = `square`."""
        ...

    @property
    def slots(self) -> tuple[int, ...]:
        """Where the pairs are kept."""
        ...

    @property
    def square(self) -> float:
        """g . g."""
        ...

    @property
    def place_of_slope(self) -> int:
        """Which of the answers to `questions` is the product of `grad` and the spare slot's s."""
        ...

    def questions(self, grad: str) -> tuple[Command, ...]:
        """What to ask when the next pair lies in the spare slot and the gradient in `grad`."""
        ...

    def learn(
        self, answers: Sequence[float], length: float, history_length: int, epsilon: float
    ) -> Self:
        """The history at the new gradient, with the new pair if s.y > epsilon * y.y.

        Args:
            length: s is the vector in the slot times this: a step length, if that is a direction.
        """
        ...

    def forget(self) -> Self:
        """The history without its pairs."""
        ...

    def propose(self, grad: str, target: str) -> Ask[Proposal]:
        """A direction, to be written to `target`, at the gradient in `grad`."""
        ...
