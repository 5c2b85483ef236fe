"""Named vectors that nobody sees: the commands by which a batch optimiser works on them.

An optimiser knows names and scalars only (Dean et al. 2012, 4.2 and appendix: the coordinator
"issues commands drawn from a small set of operations"). Every vector is cut in the same way, and
each shard carries a command out on its own slices; what comes back are a few scalars.
The paper's scaling, adding and copying are one command here, `Combine`.

A command costs a round trip to every shard, so commands travel in batches. Batches are
*replayable*: no command writes a vector that it, or a command before it in the batch, has read.
So a batch that was interrupted anywhere, or whose answer was lost, may be carried out again from
its start and leaves the same vectors and scalars. (A batch that arrives late, after the next
one, is not harmless: the receiver drops batches with an old number.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Combine:
    """target = sum of coefficient * vector over `terms`; without terms target = 0."""

    target: str
    terms: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Multiply:
    """target = left * right, element by element."""

    target: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class PseudoGradient:
    """target = the steepest one-sided slope of f + l1 * |x|_1, given grad = f's gradient at x.

    Andrew & Gao 2007, equation 4: grad + l1 sign(x) where x is not 0; elsewhere grad moved
    towards 0 by l1, but not across it.
    """

    target: str
    point: str
    grad: str
    l1: float


@dataclass(frozen=True, slots=True)
class Orthant:
    """target = sign(x) where x is not 0, else sign(-pseudo): the orthant that a step may visit."""

    target: str
    point: str
    pseudo: str


@dataclass(frozen=True, slots=True)
class Align:
    """target = direction, but 0 where x is 0 and the direction climbs by the pseudo-gradient.

    Andrew & Gao 2007, 3.2, do so for every element. Where x is not 0 this only bends a good
    direction: projecting the step keeps it in its orthant anyway (`KeepSigns`).
    """

    target: str
    direction: str
    point: str
    pseudo: str


@dataclass(frozen=True, slots=True)
class KeepSigns:
    """target = values where their sign is that of `signs`, else 0 (Andrew & Gao 2007, 3.2)."""

    target: str
    values: str
    signs: str


@dataclass(frozen=True, slots=True)
class Products:
    """Answer with the inner products left[i] . right[j], row by row: a piece of a Gram matrix."""

    left: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SumAbs:
    """Answer with the sum of absolute values."""

    vector: str


@dataclass(frozen=True, slots=True)
class MaxAbs:
    """Answer with the largest absolute value; NaN if any element is NaN."""

    vector: str


Write = Combine | Multiply | PseudoGradient | Orthant | Align | KeepSigns
Reduction = Products | SumAbs | MaxAbs
Command = Write | Reduction


def copy(target: str, source: str) -> Combine:
    """target = source."""
    return Combine(target, ((1.0, source),))


def dot(left: str, right: str) -> Products:
    """Answer with left . right."""
    return Products((left,), (right,))


class VectorStore(Protocol):
    """Vectors of one length, by name; a vector comes into being when it is first written."""

    def run(self, commands: Sequence[Command]) -> tuple[float, ...]:
        """Carry out a replayable batch in order; return all answers, in the commands' order.

        Sums are accumulated in double precision, over shards in the order of the shards:
        the same vectors give the same scalars, to the last bit.

        Raises:
            KeyError: a command reads a vector that does not exist; nothing is changed.
        """
        ...


def reads(command: Command) -> tuple[str, ...]:
    """Names of the vectors that `command` reads."""
    match command:
        case Combine(_, terms):
            return tuple(name for _, name in terms)
        case Multiply(_, left, right):
            return (left, right)
        case PseudoGradient(_, point, grad, _):
            return (point, grad)
        case Orthant(_, point, pseudo):
            return (point, pseudo)
        case Align(_, direction, point, pseudo):
            return (direction, point, pseudo)
        case KeepSigns(_, values, signs):
            return (values, signs)
        case Products(left, right):
            return (*left, *right)
        case SumAbs(vector) | MaxAbs(vector):
            return (vector,)


def writes(command: Command) -> str | None:
    """Name of the vector that `command` overwrites, if any."""
    return None if isinstance(command, Reduction) else command.target


def num_scalars(command: Command) -> int:
    """Number of scalars in the answer to `command`."""
    match command:
        case Products(left, right):
            return len(left) * len(right)
        case SumAbs() | MaxAbs():
            return 1
        case _:
            return 0


def check_replayable(commands: Iterable[Command]) -> None:
    """Raise ValueError if carrying the batch out twice could differ from once (see above)."""
    seen: set[str] = set()
    for position, command in enumerate(commands):
        seen.update(reads(command))
        if writes(command) in seen:
            raise ValueError(
                f"command {position} of a batch, {command}, writes a vector that the batch has "
                "read before: it could not be carried out again after an interruption; write to "
                "another vector, or in the next batch"
            )
