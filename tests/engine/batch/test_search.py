"""Line searches on functions of a step length."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize._dcsrch import DCSRCH

from engine.batch.config import ArmijoConfig, WolfeConfig
from engine.batch.search import Measured, Probe, start_search

#: The first three functions of More & Thuente 1994, section 5, and their slopes.
FUNCTIONS = {
    "1": (lambda a: -a / (a * a + 2), lambda a: (a * a - 2) / (a * a + 2) ** 2),
    "2": (
        lambda a: (a + 0.004) ** 5 - 2 * (a + 0.004) ** 4,
        lambda a: 5 * (a + 0.004) ** 4 - 8 * (a + 0.004) ** 3,
    ),
    "waves": (lambda a: math.cos(5 * a) - 1.1 * a, lambda a: -5 * math.sin(5 * a) - 1.1),
    "exponential": (
        lambda a: math.exp(min(a, 500.0)) - 10 * a,
        lambda a: math.exp(min(a, 500.0)) - 10,
    ),
}


def search(config, loss, slope, first):
    """The accepted step length and all probes."""
    steps = start_search(config, loss(0.0), slope(0.0), first)
    probes: list[Probe] = []
    try:
        probe = next(steps)
        while True:
            probes.append(probe)
            a = probe.step_length
            found = slope(a) if probe.gradient else math.nan
            probe = steps.send(Measured(loss(a), found, a * slope(0.0)))
    except StopIteration as stop:
        return stop.value, probes


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 30.0])
@pytest.mark.parametrize(("c1", "c2"), [(1e-3, 0.9), (1e-3, 0.1), (0.1, 0.11)])
def test_wolfe_finds_a_step_with_both_conditions(name, first, c1, c2):
    loss, slope = FUNCTIONS[name]
    config = WolfeConfig(c1=c1, c2=c2, interval_tolerance=0.0, max_trials=40)
    accepted, probes = search(config, loss, slope, first)
    assert accepted is not None
    assert loss(accepted) <= loss(0) + c1 * accepted * slope(0)
    assert abs(slope(accepted)) <= c2 * abs(slope(0))
    assert probes[-1] == Probe(accepted, gradient=True)


def ripples(rng: random.Random) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """A parabola with three waves on it, falling at 0, and its slope."""
    while True:
        waves = [(rng.uniform(-1, 1), rng.uniform(0.2, 6), rng.uniform(0, 6)) for _ in range(3)]
        bend = rng.uniform(0, 0.2)

        def loss(x: float, waves=waves, bend=bend) -> float:
            return sum(a * math.sin(w * x + p) for a, w, p in waves) + bend * x * x

        def slope(x: float, waves=waves, bend=bend) -> float:
            return sum(a * w * math.cos(w * x + p) for a, w, p in waves) + 2 * bend * x

        if slope(0.0) < -0.1:
            return loss, slope


def test_wolfe_tries_the_steps_that_scipy_tries():
    rng = random.Random(0)
    for _ in range(2000):
        loss, slope = ripples(rng)
        first, c2 = rng.choice([0.1, 1.0, 10.0]), rng.choice([0.1, 0.5, 0.9])
        config = WolfeConfig(c1=1e-3, c2=c2, max_trials=60, rounding=0.0)
        _, probes = search(config, loss, slope, first)
        tried: list[float] = []

        def counted(x: float, loss=loss, tried=tried) -> float:
            tried.append(x)
            return loss(x)

        DCSRCH(counted, slope, 1e-3, c2, 0.1, 0.0, 1e10)(first, loss(0.0), slope(0.0))
        assert [probe.step_length for probe in probes] == pytest.approx(tried, rel=1e-6)


#: Numbers of evaluations in table 1 and 2 of the paper, for the first steps 1e-3, 0.1, 10, 1000.
PAPER = {"1": (1e-3, 0.1, (6, 3, 1, 4)), "2": (0.1, 0.1, (12, 8, 8, 11))}


@pytest.mark.parametrize("name", PAPER)
def test_wolfe_needs_as_many_evaluations_as_in_the_paper(name):
    loss, slope = FUNCTIONS[name]
    c1, c2, expected = PAPER[name]
    config = WolfeConfig(c1=c1, c2=c2 * (1 + 1e-12), interval_tolerance=0.0, max_trials=40)
    counts = [len(search(config, loss, slope, first)[1]) for first in (1e-3, 0.1, 10.0, 1000.0)]
    assert counts == list(expected)


@pytest.mark.parametrize("config", [WolfeConfig(), ArmijoConfig()])
@given(wall=st.floats(0.05, 0.9), minimum=st.floats(0.01, 0.8), first=st.floats(0.1, 100))
def test_where_the_loss_is_not_finite_the_step_is_halved(config, wall, minimum, first):
    assume(minimum < wall)

    def loss(a):
        return (a - minimum) ** 2 if a < wall else math.nan

    accepted, probes = search(config, loss, lambda a: 2 * (a - minimum), first)
    steps = [probe.step_length for probe in probes]
    first_finite = next(i for i, a in enumerate(steps) if a < wall)
    assert steps[: first_finite + 1] == [first / 2**i for i in range(first_finite + 1)]
    assert accepted is not None
    assert loss(accepted) < loss(0)


@given(first=st.floats(1e-3, 1e3), c1=st.floats(1e-6, 0.4), shrink=st.floats(0.1, 0.9))
def test_backtracking_takes_the_first_step_that_falls_enough(first, c1, shrink):
    config = ArmijoConfig(c1=c1, shrink=shrink, max_trials=200)
    loss, slope = FUNCTIONS["exponential"]
    accepted, probes = search(config, loss, slope, first)
    tried = [probe.step_length for probe in probes if probe is probes[0] or not probe.gradient]
    enough = [loss(a) <= 1 - c1 * 9 * a for a in tried]
    assert enough == [False] * (len(tried) - 1) + [True]
    assert accepted == tried[-1]
    assert probes[-1] == Probe(accepted, gradient=True)


def test_backtracking_asks_for_a_gradient_at_the_first_and_at_the_accepted_step_only():
    _, probes = search(ArmijoConfig(), *FUNCTIONS["exponential"], 8.0)
    assert [probe.gradient for probe in probes] == [True, False, False, True]


@pytest.mark.parametrize("config", [WolfeConfig(max_trials=7), ArmijoConfig(max_trials=7)])
def test_a_search_that_cannot_succeed_ends_after_max_trials(config):
    accepted, probes = search(config, lambda a: 0.0 if a == 0 else 1.0 + a, lambda a: -1.0, 1.0)
    assert accepted is None
    assert len(probes) <= 7
