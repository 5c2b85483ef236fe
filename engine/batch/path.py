"""Walking along a direction: where a line search of scalars meets vectors."""

from collections import Counter
from dataclasses import dataclass
from math import isfinite, nan
from typing import Protocol

from engine.batch.iterate import Iterate, relative_change
from engine.batch.names import twin
from engine.batch.program import Ask, evaluate, run
from engine.batch.search import Measured, Search
from engine.batch.vector import Combine, Command, MaxAbs

Scalars = tuple[float, ...]


class Path(Protocol):
    """Points that step lengths lead to."""

    def go(self, step_length: float) -> tuple[Command, ...]:
        """Commands that write the trial point."""
        ...

    def evaluate(self, gradient: bool) -> Ask[float]:
        """The loss at the trial point, with or without its gradient."""
        ...

    def study(self, step_length: float) -> tuple[Command, ...]:
        """What is wanted about a trial point once its gradient is there."""
        ...

    def measure(self, step_length: float, loss: float, gone: Scalars, studied: Scalars) -> Measured:
        """What to tell the search.

        Args:
            gone: answers to `go`.
            studied: answers to `study`, empty where no gradient was computed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Landed:
    """The trial point that a search accepted."""

    step_length: float
    loss: float
    slope: float  # along the direction, at this point
    studied: Scalars


def walk(
    path: Path, search: Search, prepare: tuple[Command, ...], counts: Counter[str]
) -> Ask[Landed | None]:
    """Carry out `search` along `path`, whose trial point is then the accepted one.

    Two round trips for each trial: the commands that write the direction (`prepare`) go with the
    first trial point, and everything that the next direction needs is asked for with the slope,
    on the chance that the search ends here.
    """
    probe, reached = next(search), nan
    gone: Scalars = ()
    while True:
        step_length = probe.step_length
        if step_length != reached:
            gone = yield from run(*prepare, *path.go(step_length))
            prepare, reached = (), step_length
        loss = yield from path.evaluate(probe.gradient)
        counts["gradients" if probe.gradient else "losses"] += 1
        studied: Scalars = ()
        if probe.gradient and isfinite(loss):
            studied = yield from run(*path.study(step_length))
        measured = path.measure(step_length, loss, gone, studied)
        counts["halved"] += not isfinite(measured.loss)
        try:
            probe = search.send(measured)
        except StopIteration as stop:
            if stop.value is None:
                return None
            return Landed(step_length, measured.loss, measured.slope, studied)


class StraightPath:
    """The points x + step_length * direction."""

    #: Where the answers to `extra` begin in those to `study`; MaxAbs(grad) comes just before.
    EXTRA = 1

    def __init__(
        self,
        at: Iterate,
        direction: str,
        slope: float,
        extra: tuple[Command, ...],
        place_of_slope: int,
    ) -> None:
        """Start from `at`.

        Args:
            slope: of the loss along `direction` at its start.
            extra: what to ask about a trial point beside the size of its gradient.
            place_of_slope: which of the answers to `extra` is its gradient . direction.
        """
        self.trial, self.grad = twin(at.point), twin(at.grad)
        self._point, self._direction, self._slope = at.point, direction, slope
        self._extra, self._place_of_slope = extra, self.EXTRA + place_of_slope

    def go(self, step_length: float) -> tuple[Command, ...]:
        return (Combine(self.trial, ((1.0, self._point), (step_length, self._direction))),)

    def evaluate(self, gradient: bool) -> Ask[float]:
        return evaluate(self.trial, self.grad if gradient else None)

    def study(self, step_length: float) -> tuple[Command, ...]:
        return (MaxAbs(self.grad), *self._extra)

    def measure(self, step_length: float, loss: float, gone: Scalars, studied: Scalars) -> Measured:
        promised = step_length * self._slope
        if not studied:
            return Measured(loss, nan, promised)
        finite = isfinite(studied[0])
        return Measured(loss if finite else nan, studied[self._place_of_slope], promised)

    def landed(self, at: Iterate, landed: Landed) -> Iterate:
        """The iterate after `at`."""
        return Iterate(
            iteration=at.iteration + 1,
            point=self.trial,
            grad=self.grad,
            loss=landed.loss,
            gradient_norm=landed.studied[0],
            step_length=landed.step_length,
            change=relative_change(at.loss, landed.loss),
        )
