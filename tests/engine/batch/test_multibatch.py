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


def samples(*spans: Span) -> list[int]:
    return [sample for span in spans for sample in range(*span)]


@given(
    num_samples=st.integers(1, 300),
    batch_size=st.integers(2, 400),
    overlap=st.floats(0.01, 0.5),
    growth=st.floats(1.0, 1.5),
)
def test_each_batch_shares_its_end_with_the_next(num_samples, batch_size, overlap, growth):
    config = MultibatchConfig(
        num_samples=num_samples, batch_size=batch_size, overlap=overlap, growth=growth
    )
    last = first_batch(config)
    for _ in range(40):
        batch = next_batch(config, last)
        mine = samples(batch.before, batch.fresh, batch.after)
        assert len(mine) == len(set(mine)) == batch.num_samples
        assert set(mine) <= set(range(num_samples))
        assert batch.after.length >= 1
        assert batch.size >= last.size
        if batch.full:
            assert batch.after == Span(0, num_samples)
        else:
            assert batch.before == last.after
            assert batch.fresh.stop == batch.after.start
            assert batch.num_samples <= 1.5 * batch.size + 1
        last = batch


def test_a_pass_over_the_data_is_a_sequence_of_neighbouring_batches():
    batch, seen = first_batch(SMALL), []
    while not seen or batch.before.stop != NUM_SAMPLES:
        seen += samples(batch.fresh, batch.after)
        assert 60 <= batch.num_samples <= 150
        batch = next_batch(SMALL, batch)
    assert seen == list(range(NUM_SAMPLES))
    assert batch.fresh.start == 0


def mean(point: torch.Tensor, span: Span) -> tuple[int, float, torch.Tensor]:
    """Number of samples, mean loss, and its gradient."""
    grad = torch.empty_like(point)
    return span.length, REAL(point, grad, span), grad


def test_y_is_the_difference_of_gradients_over_the_shared_samples():
    store = LocalStore(**{START: zeros(30)})
    points: list[torch.Tensor] = []
    num_checked = 0

    def check(record: Record) -> None:
        nonlocal num_checked
        iterate, memory = record["iterate"], record["memory"]
        points.append(store.vectors[iterate["point"]].clone())
        batch = memory["batch"]
        spans = [Span(*batch[name]) for name in ("before", "fresh", "after")]
        found = [mean(points[-1], span) for span in spans if span.length]
        size = sum(span.length for span in spans)
        loss = sum(n * loss for n, loss, _ in found) / size
        grad = sum(n * grad for n, _, grad in found) / size
        torch.testing.assert_close(store.vectors[iterate["grad"]], grad)
        assert iterate["loss"] == pytest.approx(loss)
        if len(points) > 1:
            slot = memory["gram"]["slots"][-1]
            y = mean(points[-1], spans[0])[2] - mean(points[-2], spans[0])[2]
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
        by_point.setdefault(point, []).extend(samples(span))
    assert len(by_point) > 12
    assert all(len(set(seen)) == len(seen) <= 150 for seen in by_point.values())


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
