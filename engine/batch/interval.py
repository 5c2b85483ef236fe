"""The interval of More & Thuente's line search (1994, section 4): where to try next."""

from math import copysign, inf, sqrt
from typing import NamedTuple


class Side(NamedTuple):
    """A step length with the function's value and slope there."""

    step: float
    value: float
    slope: float

    def tilted(self, incline: float) -> "Side":
        """The same place of the function minus `incline` * step."""
        return Side(self.step, self.value - incline * self.step, self.slope - incline)


class Interval:
    """An interval that shrinks around a minimiser: the best step so far, and the other end.

    Until a minimiser is known to lie between the two it has no other end, and steps grow.
    """

    def __init__(self, start: Side, first: float) -> None:
        """Begin at step 0, `start`; `first` is the step that will be tried first."""
        self.best = self.other = start
        self.bracketed = False
        self._low, self._high = 0.0, 5.0 * first  # bounds of the next step
        self._width = self._width_before = inf

    def exhausted(self, step: float, tolerance: float) -> bool:
        """Whether rounding or the relative `tolerance` on the width forbids to go on."""
        return self.bracketed and (
            not self._low < step < self._high or self._high - self._low <= tolerance * self._high
        )

    def narrow(self, trial: Side, incline: float, tolerance: float) -> float:
        """Take in a trial and return the step to try next.

        Args:
            incline: choose by the function minus `incline` * step.
            tolerance: relative width of the interval at which to return to the best step.
        """
        best, other = self.best.tilted(incline), self.other.tilted(incline)
        step = self._interpolate(best, other, trial.tilted(incline))
        if trial.tilted(incline).value > best.value:
            self.other, self.bracketed = trial, True
        else:
            if _opposite(trial.slope - incline, best.slope):
                self.other, self.bracketed = self.best, True
            self.best = trial
        return self._safeguard(step, tolerance)

    def _interpolate(self, best: Side, other: Side, trial: Side) -> float:
        """The four cases of section 4, in the order of the paper."""
        away = self._high if trial.step > best.step else self._low
        if trial.value > best.value:
            cubic, quadratic = _cubic(best, trial), _quadratic(best, trial)
            if abs(cubic - best.step) < abs(quadratic - best.step):
                return cubic
            return cubic + (quadratic - cubic) / 2
        if _opposite(trial.slope, best.slope):
            cubic, secant = _cubic(trial, best), _secant(trial, best)
            return cubic if abs(cubic - trial.step) > abs(secant - trial.step) else secant
        if abs(trial.slope) < abs(best.slope):
            return self._decreasing_slope(best, other, trial, away)
        return _cubic(trial, other) if self.bracketed else away

    def _decreasing_slope(self, best: Side, other: Side, trial: Side, away: float) -> float:
        cubic, secant = _cubic_beyond(trial, best, away), _secant(trial, best)
        cubic_is_closer = abs(cubic - trial.step) < abs(secant - trial.step)
        if not self.bracketed:
            step = secant if cubic_is_closer else cubic
            return min(max(step, self._low), self._high)
        step = cubic if cubic_is_closer else secant
        limit = trial.step + 0.66 * (other.step - trial.step)
        return min(step, limit) if trial.step > best.step else max(step, limit)

    def _safeguard(self, step: float, tolerance: float) -> float:
        if not self.bracketed:
            self._low = step + 1.1 * (step - self.best.step)
            self._high = step + 4.0 * (step - self.best.step)
            return step
        width = abs(self.other.step - self.best.step)
        if width >= 0.66 * self._width_before:
            step = self.best.step + (self.other.step - self.best.step) / 2
        self._width_before, self._width = self._width, width
        self._low, self._high = sorted((self.best.step, self.other.step))
        return self.best.step if self.exhausted(step, tolerance) else step


def _opposite(slope: float, other: float) -> bool:
    return slope * copysign(1.0, other) < 0


def _cubic_ratio(near: Side, far: Side) -> tuple[float, float]:
    """Where the cubic through both sides has its minimiser, in units of far - near, from near."""
    theta = 3 * (near.value - far.value) / (far.step - near.step) + near.slope + far.slope
    scale = max(abs(theta), abs(near.slope), abs(far.slope))
    if not scale:
        return inf, 0.0
    square = (theta / scale) ** 2 - (near.slope / scale) * (far.slope / scale)
    gamma = copysign(scale * sqrt(max(0.0, square)), far.step - near.step)
    divisor = ((gamma - near.slope) + gamma) + far.slope
    return ((gamma - near.slope) + theta) / divisor if divisor else inf, gamma


def _cubic(near: Side, far: Side) -> float:
    return near.step + _cubic_ratio(near, far)[0] * (far.step - near.step)


def _cubic_beyond(near: Side, far: Side, away: float) -> float:
    """The cubic's minimiser on the side of `near` that is not towards `far`, or else `away`."""
    ratio, gamma = _cubic_ratio(near, far)
    return near.step + ratio * (far.step - near.step) if ratio < 0 and gamma != 0 else away


def _quadratic(near: Side, far: Side) -> float:
    """Minimiser of the parabola through both values with the slope at `near`."""
    chord = (near.value - far.value) / (far.step - near.step)
    return near.step + near.slope / (chord + near.slope) / 2 * (far.step - near.step)


def _secant(near: Side, far: Side) -> float:
    """Where the line through both slopes is 0."""
    return near.step + near.slope / (near.slope - far.slope) * (far.step - near.step)
