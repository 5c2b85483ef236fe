"""Line searches as programs of scalars: they see step lengths, losses and slopes, nothing else.

A search is a generator: it yields a `Probe`, is sent what was `Measured` there, and returns the
accepted step length, which is always the last one probed with its gradient, or None.
"""

from collections.abc import Generator
from dataclasses import dataclass
from math import inf, isfinite

from engine.batch.config import ArmijoConfig, WolfeConfig
from engine.batch.interval import Interval, Side


@dataclass(frozen=True, slots=True)
class Probe:
    """Measure the loss at this step length, and with `gradient` the gradient there too."""

    step_length: float
    gradient: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What a probe found. The loss counts as NaN where the gradient is not finite."""

    loss: float
    slope: float  # of the loss along the direction; NaN without gradient
    promised: float  # change of the loss that the slope at step 0 promises, negative


Search = Generator[Probe, Measured, float | None]


def start_search(
    config: ArmijoConfig | WolfeConfig, loss: float, slope: float, first: float
) -> Search:
    """The search that `config` describes.

    Args:
        loss: at step 0.
        slope: of the loss along the direction at step 0, negative.
        first: step length to try first.
    """
    if isinstance(config, ArmijoConfig):
        return backtracking(config, loss, first)
    return strong_wolfe(config, loss, slope, first)


def backtracking(config: ArmijoConfig, loss: float, first: float) -> Search:
    """Shrink the step until loss(step) <= loss + c1 * promised (Nocedal & Wright 2006, 3.4).

    The first try is mostly accepted, so its gradient is computed with it; later ones are made by
    the loss alone, and only the accepted one again with its gradient.
    """
    step_length = first
    for trial in range(config.max_trials):
        measured = yield Probe(step_length, gradient=trial == 0)
        if _fallen(config, loss, measured) and trial > 0:
            measured = yield Probe(step_length, gradient=True)  # its gradient may not be finite
        if _fallen(config, loss, measured):
            return step_length
        step_length *= config.shrink if isfinite(measured.loss) else 0.5
    return None


def _fallen(config: ArmijoConfig, loss: float, measured: Measured) -> bool:
    allowed = config.c1 * measured.promised + config.rounding * abs(loss)
    return measured.loss <= loss + allowed


def strong_wolfe(config: WolfeConfig, loss: float, slope: float, first: float) -> Search:
    """Find a step with a sufficient fall and |slope(step)| <= c2 |slope|.

    The method of More & Thuente (1994): an interval that holds such a step shrinks by safeguarded
    cubic and quadratic interpolation, at first of the auxiliary function psi(step) = loss(step)
    - loss - c1 slope step. A loss that is not finite halves the way from the best step so far.
    Near a minimum rounding hides the fall of the loss, but not yet that of the slope, which then
    decides alone (the idea of Hager & Zhang 2005, 4.1).
    """
    interval = Interval(Side(0.0, loss, slope), first)
    wall = inf  # shortest step known to give no finite loss
    step_length, on_psi = first, True
    for _ in range(config.max_trials):
        measured = yield Probe(step_length, gradient=True)
        if not (isfinite(measured.loss) and isfinite(measured.slope)):
            wall = step_length
            step_length = (interval.best.step + wall) / 2
            continue
        line = loss + config.c1 * slope * step_length
        fallen = measured.loss <= line
        hidden = abs(measured.loss - loss) <= config.rounding * abs(loss)
        if (fallen or hidden) and abs(measured.slope) <= -config.c2 * slope:
            return step_length
        if interval.exhausted(step_length, config.interval_tolerance):
            return step_length if fallen else None
        on_psi = on_psi and not (fallen and measured.slope >= 0)
        tilted = on_psi and line < measured.loss <= interval.best.value
        step_length = interval.narrow(
            Side(step_length, measured.loss, measured.slope),
            config.c1 * slope if tilted else 0.0,
            config.interval_tolerance,
        )
        if step_length >= wall:
            step_length = (interval.best.step + wall) / 2
        if not 0 < step_length < inf:
            return None  # back at the start: rounding hides the fall
    return None
