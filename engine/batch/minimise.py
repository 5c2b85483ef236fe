"""Batch optimisation in this process: an optimiser's program on vectors in memory."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engine.batch.config import OptimiserConfig
from engine.batch.iterate import Solution
from engine.batch.local import LocalStore
from engine.batch.loop import Record
from engine.batch.methods import program, vector_names
from engine.batch.names import START
from engine.batch.program import Answer, Commit, Evaluate, Instruction, Run, Span

#: (x, grad, samples) -> mean loss at x (P,) over the samples, all of them if None; overwrites
#: grad (P,), if given, with the gradient.
Objective = Callable[[Tensor, Tensor | None, Span | None], float]


@dataclass(frozen=True)
class Minimum:
    """Where an optimisation ended."""

    solution: Solution
    point: Tensor  # (P,)
    num_round_trips: int  # batches of commands; evaluations come on top


def minimise(
    objective: Objective,
    initial: Tensor,
    config: OptimiserConfig,
    on_commit: Callable[[Record], None] = lambda record: None,
) -> Minimum:
    """Minimise `objective` from `initial`, (P,), in the dtype of `initial`.

    Args:
        on_commit: told every iterate, as a record that JSON can hold.
    """
    store = LocalStore(**{START: initial})
    store.reserve(vector_names(config))
    solution = drive(store, objective, config, None, on_commit)
    point = store.vectors[solution.iterate.point].clone()  # and not all the other rows with it
    return Minimum(solution, point, store.num_round_trips)


def drive(
    store: LocalStore,
    objective: Objective,
    config: OptimiserConfig,
    record: Record | None,
    on_commit: Callable[[Record], None],
) -> Solution:
    """Carry out an optimiser's program, from `record` if there is one, to its end."""
    steps, answer = program(config, record), None
    while True:
        try:
            instruction = steps.send(answer)
        except StopIteration as stop:
            solution: Solution = stop.value
            return solution
        answer = _carry_out(instruction, store, objective, on_commit)


def _carry_out(
    instruction: Instruction,
    store: LocalStore,
    objective: Objective,
    on_commit: Callable[[Record], None],
) -> Answer:
    match instruction:
        case Run(commands):
            return store.run(commands)
        case Evaluate(point, grad, samples):
            return _evaluate(store, objective, point, grad, samples)
        case Commit(record):
            on_commit(record)
            return None


def _evaluate(
    store: LocalStore, objective: Objective, point: str, grad: str | None, samples: Span | None
) -> float:
    target = None if grad is None else store.writable(grad)
    return objective(store.vectors[point], target, samples)
