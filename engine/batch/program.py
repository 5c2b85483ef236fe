"""What a batch optimiser wants done next: the instructions that its generator yields.

An optimiser is a generator of instructions that makes decisions from scalars only. Whoever
drives it carries them out: `engine.batch.minimise` on vectors of this process, a coordinator on
parameter shards and with the help of replicas.

What a committed record names stays untouched until the next `Commit`: an optimiser that is killed
in between goes on from the record as if it had just been written, and comes to the same iterates.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from engine.batch.vector import Command


class Span(NamedTuple):
    """Samples start to stop - 1, numbered through the problem's units."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of samples."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Run:
    """Carry out a batch of commands; answer with its scalars. One round trip."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Answer with the mean loss at the vector `point`; may be NaN or infinite.

    With `grad`, that vector is overwritten with the gradient of the mean loss.
    Without `samples`, over the full batch.
    """

    point: str
    grad: str | None
    samples: Span | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """Keep `record` (JSON-able scalars and names) in place of the one before; answer None."""

    record: dict[str, Any]


Instruction = Run | Evaluate | Commit
Answer = tuple[float, ...] | float | None
T = TypeVar("T")
#: A part of an optimiser's program, which ends in a T.
Ask = Generator[Instruction, Answer, T]


def run(*commands: Command) -> Ask[tuple[float, ...]]:
    """`scalars = yield from run(...)`."""
    answer = yield Run(commands)
    assert isinstance(answer, tuple)
    return answer


def evaluate(point: str, grad: str | None, samples: Span | None = None) -> Ask[float]:
    """`loss = yield from evaluate(...)`."""
    answer = yield Evaluate(point, grad, samples)
    assert isinstance(answer, float)
    return answer
