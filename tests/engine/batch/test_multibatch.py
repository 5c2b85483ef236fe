"""L-BFGS on overlapping, growing batches."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.batch.config import MultibatchConfig
from engine.batch.iterate import Outcome
from engine.batch.local import LocalStore
from engine.batch.loop import Record
from engine.batch.minimise import drive, minimise
from engine.batch.names import START
from engine.batch.program import Span
from engine.batch.spans import first_batch, next_batch
from tests.engine.batch.optimisers import EXACT, REAL, zeros

NUM_SAMPLES = 569
SMALL = MultibatchConfig(num_samples=NUM_SAMPLES, batch_size=100, overlap=0.3, max_iterations=12)


def samples(span: Span, num_samples: int) -> list[int]:
    return [position % num_samples for position in range(*span)]


@given(
    num_samples=st.integers(1, 300),
    batch_size=st.integers(1, 400),
    overlap=st.floats(0.01, 0.5),
    growth=st.floats(1.0, 1.5),
)
def test_each_batch_starts_with_what_the_last_one_shares(num_samples, batch_size, overlap, growth):
    config = MultibatchConfig(
        num_samples=num_samples, batch_size=batch_size, overlap=overlap, growth=growth
    )
    batch = first_batch(config)
    for _ in range(30):
        after = next_batch(config, batch)
        num_shared = batch.stop - batch.tail
        assert 1 <= num_shared <= after.stop - after.start <= num_samples
        shared = samples(batch.shared, num_samples)
        assert shared == samples(Span(after.start, after.start + num_shared), num_samples)
        fresh, tail = after.unknown(num_shared)
        assert num_shared + len(range(*fresh)) + len(range(*tail)) == after.stop - after.start
        assert after.size >= batch.size
        if batch.full:
            assert after == batch
        batch = after


def test_a_pass_over_the_data_is_a_sequence_of_neighbouring_batches():
    batch, seen = first_batch(SMALL), []
    for _ in range(9):
        seen += samples(batch.head, NUM_SAMPLES)
        batch = next_batch(SMALL, batch)
    assert seen[:NUM_SAMPLES] == list(range(NUM_SAMPLES))


def gradient(point: torch.Tensor, span: Span) -> torch.Tensor:
    grad = torch.empty_like(point)
    REAL(point, grad, span)
    return grad


def test_y_is_the_difference_of_gradients_over_the_shared_samples():
    store = LocalStore(**{START: zeros(30)})
    points: list[torch.Tensor] = []
    num_checked = 0

    def check(record: Record) -> None:
        nonlocal num_checked
        iterate, memory = record["iterate"], record["memory"]
        points.append(store.vectors[iterate["point"]].clone())
        batch = memory["batch"]
        whole = Span(batch["start"], batch["stop"])
        torch.testing.assert_close(store.vectors[iterate["grad"]], gradient(points[-1], whole))
        assert iterate["loss"] == pytest.approx(REAL(points[-1], None, whole))
        if len(points) > 1:
            slot = memory["gram"]["slots"][-1]
            first = batch["start"]
            shared = Span(first, first + 30)  # 0.3 of 100
            y = gradient(points[-1], shared) - gradient(points[-2], shared)
            torch.testing.assert_close(store.vectors[f"y{slot}"], y)
            torch.testing.assert_close(store.vectors[f"s{slot}"], points[-1] - points[-2])
            num_checked += 1

    drive(store, REAL, SMALL, None, check)
    assert num_checked == 12


def test_no_sample_is_evaluated_twice_at_a_point_with_its_gradient():
    calls: list[Any] = []

    def counted(x: torch.Tensor, grad: torch.Tensor | None, span: Span | None) -> float:
        if grad is not None:
            calls.append((tuple(x.tolist()), span))
        return REAL(x, grad, span)

    minimise(counted, zeros(30), SMALL)
    by_point: dict[Any, list[int]] = {}
    for point, span in calls:
        by_point.setdefault(point, []).extend(samples(span, NUM_SAMPLES))
    assert len(by_point) > 12
    assert all(len(set(seen)) == len(seen) <= 100 for seen in by_point.values())


def test_growing_batches_end_at_the_optimum_of_the_full_batch():
    config = MultibatchConfig(num_samples=NUM_SAMPLES, batch_size=40, growth=1.5, **EXACT)
    best = minimise(REAL, zeros(30), config)
    assert best.solution.outcome is Outcome.GRADIENT
    grad = torch.empty(30, dtype=torch.float64)
    REAL(best.point, grad, None)
    assert float(grad.abs().max()) < 1e-9


def test_small_batches_come_near_the_optimum_in_a_few_passes():
    optimum = REAL(
        minimise(
            REAL,
            zeros(30),
            MultibatchConfig(num_samples=NUM_SAMPLES, batch_size=NUM_SAMPLES, **EXACT),
        ).point,
        None,
        None,
    )
    best = minimise(REAL, zeros(30), SMALL)
    start = REAL(zeros(30), None, None)
    assert REAL(best.point, None, None) - optimum < 0.05 * (start - optimum)
