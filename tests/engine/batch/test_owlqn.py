"""OWL-QN against scikit-learn and against the conditions of a minimum under an l1 term."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from engine.batch.config import OwlqnConfig
from engine.batch.iterate import Outcome
from engine.batch.minimise import Minimum, minimise
from tests.engine.batch.objectives import breast_cancer, logistic, odd_digits
from tests.engine.batch.optimisers import EXACT, zeros

DATA = {"breast cancer": breast_cancer, "odd digits": odd_digits}


def solve(name: str, l1: float, l2: float) -> Minimum:
    points, labels = DATA[name]()
    objective = logistic((points, labels), l2)
    return minimise(
        objective,
        zeros(points.shape[1]),
        OwlqnConfig(l1=l1, **{**EXACT, "gradient_tolerance": 1e-11}),
    )


@pytest.mark.parametrize("name", DATA)
def test_the_optimum_is_that_of_scikit_learn(name):
    points, labels = DATA[name]()
    l1, l2 = 0.01, 0.005
    best = solve(name, l1, l2)
    rival = LogisticRegression(
        C=1 / (len(labels) * (l1 + l2)),
        l1_ratio=l1 / (l1 + l2),
        solver="saga",
        fit_intercept=False,
        tol=1e-12,
        max_iter=100_000,
        random_state=0,
    )
    theirs = rival.fit(points.numpy(), labels.numpy()).coef_[0]
    np.testing.assert_allclose(best.point, theirs, rtol=0, atol=1e-8)
    assert (best.point == 0).tolist() == (theirs == 0).tolist()
    assert 0.2 < float((best.point == 0).double().mean()) < 1.0


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("l1", [0.1, 0.01, 0.001])
def test_no_one_sided_slope_descends_at_the_optimum(name, l1):
    best = solve(name, l1, 1e-3)
    grad = torch.empty_like(best.point)
    loss = logistic(DATA[name](), 1e-3)(best.point, grad, None)
    assert best.solution.outcome is Outcome.GRADIENT
    assert best.solution.iterate.loss == pytest.approx(loss + l1 * float(best.point.abs().sum()))
    zero = best.point == 0
    assert float(grad[zero].abs().max()) <= l1 + 1e-9
    assert float((grad + l1 * best.point.sign())[~zero].abs().max()) <= 1e-9


def test_a_large_enough_l1_term_leaves_nothing():
    grad = torch.empty(30, dtype=torch.float64)
    logistic(breast_cancer(), 0.0)(zeros(30), grad, None)
    largest = float(grad.abs().max())
    assert torch.equal(solve("breast cancer", largest, 0.0).point, zeros(30))
    assert solve("breast cancer", 0.99 * largest, 0.0).point.count_nonzero() == 1


def test_few_evaluations_are_spent_on_bent_directions():
    counts = solve("breast cancer", 1 / 569, 0.0).solution.iterate.counts
    # 1776 with Andrew & Gao's alignment of every element, 307 with that of zeros only.
    assert counts["gradients"] + counts["losses"] < 600
