"""A linear classifier whose cost is chosen on a part of the training images (appendix B)."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor

MAX_ITERATIONS: Final = 2000
MAX_GRAM_SIDE: Final = 4096  # an eigendecomposition of this size takes 10 s on two cores


class SvmResult(NamedTuple):
    """What a linear classifier says of test images, and how it was found."""

    predicted: Tensor  # (N,) int64
    cost: float  # C, chosen on the validation part
    converged: bool  # every fit, those of the choice included


class _Fit(NamedTuple):
    classifier: LinearSVC
    converged: bool


def classify(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    costs: Sequence[float],
    validation_fraction: float,
    seed: int,
) -> SvmResult:
    """Train one-vs-rest linear SVMs and apply them.

    Each cost C is tried with a part of each class held out; the best (the smallest of equals) is
    trained again on all training images. Equal arguments give equal results.

    Args:
        train_features, test_features: (N, D) and (M, D).
        train_labels: (N,) integers, at least two classes.
        validation_fraction: held out of each class, rounded; at least one image, and one stays.

    Raises:
        ValueError: when there is a choice of costs but no class has two images.
    """
    train, test = _onto_span(train_features, test_features)
    labels = train_labels.numpy()
    held_out = _held_out(labels, validation_fraction, seed)
    if len(costs) > 1 and not held_out.any():
        raise ValueError(
            f"no class of {len(labels)} training images has two of them: "
            "nothing can be held out to choose between svm_costs"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged` instead
        tried = _try(train[~held_out], labels[~held_out], costs, seed) if len(costs) > 1 else {}
        accuracies = {
            cost: fit.classifier.score(train[held_out], labels[held_out])
            for cost, fit in tried.items()
        }
        best = max(accuracies, key=accuracies.__getitem__, default=costs[0])
        final = _fit(train, labels, best, seed)
    predicted = torch.from_numpy(final.classifier.predict(test))
    return SvmResult(predicted, best, all(fit.converged for fit in [*tried.values(), final]))


def _try(
    features: NDArray[np.float64], labels: NDArray[np.int64], costs: Sequence[float], seed: int
) -> dict[float, _Fit]:
    """A fit for each cost, smallest first. Threads: the solver runs without the interpreter."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        fits = pool.map(lambda cost: _fit(features, labels, cost, seed), sorted(costs))
        return dict(zip(sorted(costs), fits, strict=True))


def _fit(features: NDArray[np.float64], labels: NDArray[np.int64], cost: float, seed: int) -> _Fit:
    # Newton's method where there are more rows than columns: its time hardly grows with the cost,
    # where coordinate ascent on the dual took 500 passes at 10 and did not end at 100.
    classifier = LinearSVC(
        C=cost, dual="auto", tol=1e-3, max_iter=MAX_ITERATIONS, random_state=seed
    )
    classifier.fit(features, labels)
    return _Fit(classifier, bool(classifier.n_iter_ < MAX_ITERATIONS))


def _held_out(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        num = min(len(rows) - 1, max(1, round(fraction * len(rows))))
        chosen[rows[:num]] = True
    return chosen


def _onto_span(train: Tensor, test: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotate features into the span of the training rows where that at least halves the columns.

    A linear SVM's weights lie in that span, so the classifier stays the same but for rounding. Grey
    images hold every pixel three times: fits on 6,400 of them took a quarter of the time.
    """
    rows = train.double()
    num, width = rows.shape
    if min(num, width) <= MAX_GRAM_SIDE:
        basis = _basis(rows)
        if 2 * basis.shape[1] <= width:
            return (rows @ basis).numpy(), (test.double() @ basis).numpy()
    return rows.numpy(), test.double().numpy()


def _basis(rows: Tensor) -> Tensor:
    """Orthonormal columns (D, rank) that span the rows (N, D)."""
    wide = rows.shape[0] < rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = values > 1e-10 * values[-1]  # squares of singular values; float32 features end at 1e-13
    basis: Tensor = vectors[:, kept]
    return rows.T @ basis / values[kept].sqrt() if wide else basis
