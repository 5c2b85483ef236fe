"""Optimisers that are killed anywhere and go on from the last record."""

import json
import math
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch.config import LbfgsConfig, OptimiserConfig, OwlqnConfig
from engine.batch.local import LocalStore
from engine.batch.loop import Record
from engine.batch.methods import program, vector_names
from engine.batch.minimise import drive, minimise
from engine.batch.names import START, s, y
from engine.batch.program import Span
from tests.engine.batch.optimisers import EVERY, REAL, zeros


class KilledError(Exception):
    """The process ended here."""


def committed(record: Record) -> set[str]:
    """Names of the vectors that a record relies on."""
    memory = record["memory"]
    slots = memory.get("gram", memory).get("slots", ())
    values = [*record["iterate"].values(), *memory.values()]
    return {v for v in values if isinstance(v, str)} | {f(k) for k in slots for f in (s, y)}


def started(config: OptimiserConfig, kind: type[LocalStore] = LocalStore) -> LocalStore:
    """Laid out as `minimise` does: where vectors lie decides in which order sums are formed."""
    store = kind(**{START: zeros(30)})
    store.reserve(vector_names(config))
    return store


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25)
@given(num_evaluations=st.integers(1, 60))
def test_a_killed_optimiser_comes_to_the_same_bits_from_its_record(name, num_evaluations):
    config, whole = EVERY[name], minimise(REAL, zeros(30), EVERY[name])
    store, left = started(config), [num_evaluations]
    records: list[str] = []
    then = {}

    def objective(x: torch.Tensor, grad: torch.Tensor | None, samples: Span | None) -> float:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        return REAL(x, grad, samples)

    def commit(record: Record) -> None:
        records.append(json.dumps(record))
        then.update({name: vector.clone() for name, vector in store.vectors.items()})

    with suppress(KilledError):
        drive(store, objective, config, None, commit)
    if not records:
        return  # killed before the initial point was known
    record = json.loads(records[-1])
    kept = committed(record)
    assert all(torch.equal(store.vectors[name], then[name]) for name in kept)
    for name in set(store.vectors) - kept:
        store.vectors[name].fill_(math.nan)
    resumed = drive(store, REAL, config, record, lambda record: None)
    assert resumed == whole.solution
    assert torch.equal(store.vectors[resumed.iterate.point], whole.point)


@pytest.mark.parametrize("name", EVERY)
def test_the_same_run_gives_the_same_records(name):
    first: list[Any] = []
    second: list[Any] = []
    minimise(REAL, zeros(30), EVERY[name], first.append)
    minimise(REAL, zeros(30), EVERY[name], second.append)
    assert first == second


@pytest.mark.parametrize("name", EVERY)
def test_every_batch_of_commands_may_be_carried_out_twice(name):
    config, whole = EVERY[name], minimise(REAL, zeros(30), EVERY[name])

    class Stutter(LocalStore):
        """Loses every first answer, and half of each batch with it."""

        def run(self, commands):
            super().run(commands[: len(commands) // 2])
            super().run(commands)
            return super().run(commands)

    store = started(config, Stutter)
    solution = drive(store, REAL, config, None, lambda record: None)
    assert solution == whole.solution
    assert torch.equal(store.vectors[solution.iterate.point], whole.point)


@pytest.mark.parametrize("name", ["lbfgs", "backtracking", "two loops", "owlqn"])
def test_nothing_that_the_newest_record_names_is_overwritten_when_a_search_has_failed(name):
    store = LocalStore(**{START: zeros(30)})
    then: dict[str, torch.Tensor] = {}
    calls, resets = [0], [0]

    def lies_for_a_while(x: torch.Tensor, grad: torch.Tensor | None, samples: Span | None) -> float:
        assert all(torch.equal(store.vectors[name], vector) for name, vector in then.items())
        calls[0] += 1
        return REAL(x, grad, samples) + (1e6 if 10 < calls[0] < 45 else 0.0)

    def commit(record: Record) -> None:
        resets[0] = record["iterate"]["counts"].get("resets", 0)
        then.clear()
        then.update({name: store.vectors[name].clone() for name in committed(record)})

    drive(store, lies_for_a_while, EVERY[name], None, commit)
    assert resets[0] >= 1


def test_a_record_of_another_optimiser_is_refused():
    records: list[Record] = []
    minimise(REAL, zeros(30), LbfgsConfig(max_iterations=1), records.append)
    steps = program(OwlqnConfig(l1=0.1), records[-1])
    with pytest.raises(ValueError, match="one of 'Lbfgs', the configuration asks for 'Owlqn'"):
        next(steps)
