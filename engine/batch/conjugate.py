"""Nonlinear conjugate gradients (Nocedal & Wright 2006, section 5.2)."""

from collections import Counter
from dataclasses import dataclass

from engine.batch.config import ConjugateConfig
from engine.batch.iterate import Iterate
from engine.batch.names import twin, twins
from engine.batch.path import StraightPath, walk
from engine.batch.program import Ask
from engine.batch.search import start_search
from engine.batch.starting import first_step, start_smooth
from engine.batch.vector import Combine, Products


@dataclass(frozen=True)
class Last:
    """The last direction d, and what the next one is made of."""

    square: float  # g . g
    direction: str | None = None  # its name; none before the first step
    beta: float = 0.0  # the next direction is -g + beta d; 0: steepest descent
    along: float = 0.0  # g . d
    fall: float = 0.0  # step length * slope of the last iteration, negative


class Conjugate:
    """Polak-Ribiere+: beta = max(0, g'.(g' - g) / g.g); two round trips an iteration."""

    memory = Last

    def __init__(self, config: ConjugateConfig) -> None:
        self.config = config

    @property
    def vectors(self) -> tuple[str, ...]:
        return tuple(twins("x", "grad", "direction"))

    def start(self, counts: Counter[str]) -> Ask[tuple[Iterate, Last]]:
        at, square = yield from start_smooth(counts)
        return at, Last(square)

    def step(
        self, at: Iterate, memory: Last, counts: Counter[str]
    ) -> Ask[tuple[Iterate, Last] | None]:
        slope = -memory.square + memory.beta * memory.along
        if not slope < 0:
            return None
        direction, grad = twin(memory.direction or "direction1"), twin(at.grad)
        previous = ((memory.beta, memory.direction),) if memory.direction else ()
        # The same fall to first order as in the last iteration (equation 3.60).
        first = memory.fall / slope if memory.direction else first_step(memory.square)
        next_beta = Products((grad,), (direction, grad, at.grad))
        path = StraightPath(at, direction, slope, (next_beta,), place_of_slope=0)
        search = start_search(self.config.line_search, at.loss, slope, first)
        write = Combine(direction, ((-1.0, at.grad), *previous))
        landed = yield from walk(path, search, (write,), counts)
        if landed is None:
            return None
        _, square, across = landed.studied[path.EXTRA :]
        beta = max(0.0, (square - across) / memory.square)
        fall = landed.step_length * slope
        return path.landed(at, landed), Last(square, direction, beta, landed.slope, fall)

    def forget(self, memory: Last) -> Last | None:
        return Last(memory.square) if memory.direction else None
