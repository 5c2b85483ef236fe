"""Both forms of the L-BFGS direction against the book's matrices."""

import numpy as np
import pytest
import torch

from engine.batch.gram import Gram
from engine.batch.local import LocalStore
from engine.batch.program import Run
from engine.batch.two_loop import Pairs
from engine.batch.vector import Combine, dot

SIZE = 12


def inverse_hessian(pairs):
    """BFGS inverse update, Nocedal & Wright 2006, equation 7.16, one pair at a time."""
    s, y = pairs[-1]
    matrix = (s @ y) / (y @ y) * np.eye(SIZE)
    for s, y in pairs:
        v = np.eye(SIZE) - np.outer(y, s) / (s @ y)
        matrix = v.T @ matrix @ v + np.outer(s, s) / (s @ y)
    return matrix


def drive(store, program):
    """Carry out a program that only runs commands; its value."""
    answer = None
    while True:
        try:
            instruction = program.send(answer)
        except StopIteration as stop:
            return stop.value
        assert isinstance(instruction, Run)
        answer = store.run(instruction.commands)


def remember(store, form, num_pairs, history_length, rng):
    """Feed random pairs to a history; the pairs that were good, and the last gradient."""
    grad = rng.normal(size=SIZE)
    store.vectors["g"] = torch.from_numpy(grad)
    history = form.at(float(grad @ grad))
    kept = []
    for number in range(num_pairs):
        s, y = rng.normal(size=(2, SIZE))
        y *= np.sign(s @ y) * (-1 if number % 4 == 2 else 1)  # every fourth has no curvature
        if s @ y > 0:
            kept.append((s, y))
        slot = next(i for i in range(history_length + 1) if i not in history.slots)
        grad = rng.normal(size=SIZE)
        length = rng.uniform(0.1, 3.0)
        fresh = {f"s{slot}": s / length, f"y{slot}": y, "g": grad}
        store.vectors.update({name: torch.from_numpy(v) for name, v in fresh.items()})
        history = history.learn(store.run(history.questions("g")), length, history_length, 1e-12)
    return history, kept[-history_length:], grad


@pytest.mark.parametrize("form", [Gram, Pairs])
@pytest.mark.parametrize("history_length", [1, 2, 5])
@pytest.mark.parametrize("num_pairs", [1, 2, 5, 6, 9, 17])  # the ring turns up to 12 times
def test_the_direction_is_that_of_the_matrix_recursion(form, history_length, num_pairs):
    rng = np.random.default_rng(num_pairs)
    store = LocalStore(g=torch.zeros(SIZE, dtype=torch.float64))
    history, pairs, grad = remember(store, form, num_pairs, history_length, rng)
    before = store.num_round_trips
    proposal = drive(store, history.propose("g", "d"))
    num_round_trips = store.num_round_trips - before
    store.run((*proposal.commands, dot("d", "g")))
    expected = -inverse_hessian(pairs) @ grad
    np.testing.assert_allclose(store.vectors["d"], expected, rtol=1e-9, atol=1e-9)
    assert proposal.slope == pytest.approx(expected @ grad, rel=1e-9)
    assert num_round_trips == (0 if form is Gram else 2 * len(pairs) + 1)


@pytest.mark.parametrize("form", [Gram, Pairs])
def test_without_pairs_the_direction_is_steepest_descent(form):
    grad = torch.arange(3.0, dtype=torch.float64)
    store = LocalStore(g=grad)
    proposal = drive(store, form.at(5.0).propose("g", "d"))
    store.run((*proposal.commands, Combine("unused", ())))
    assert torch.equal(store.vectors["d"], -grad)
    assert proposal.slope == -5.0


@pytest.mark.parametrize("form", [Gram, Pairs])
def test_forgetting_keeps_the_gradient_and_drops_the_pairs(form):
    rng = np.random.default_rng(0)
    store = LocalStore(g=torch.zeros(SIZE, dtype=torch.float64))
    history, _, grad = remember(store, form, 5, 3, rng)
    assert history.slots
    assert history.forget() == form.at(history.square)
    assert history.square == pytest.approx(grad @ grad)
