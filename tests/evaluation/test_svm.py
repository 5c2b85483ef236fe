"""The linear classifier, the choice of its cost, and what it says of itself."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from evaluation import svm
from evaluation.svm import classify

COSTS = (0.01, 0.1, 1.0, 10.0)


def digit_features():
    """Features with norm 1, as transfer makes them, and labels: 600 to train, 300 to test."""
    data = load_digits()
    features = torch.nn.functional.normalize(torch.tensor(data.data[:900], dtype=torch.float32))
    labels = torch.tensor(data.target[:900])
    return features[:600], labels[:600], features[600:], labels[600:]


def test_it_classifies_and_repeats_itself_exactly():
    train, labels, test, truth = digit_features()
    first = classify(train, labels, test, COSTS, 0.2, seed=1)
    again = classify(train, labels, test, COSTS, 0.2, seed=1)
    assert (first.predicted == truth).double().mean() > 0.85
    assert first.converged
    assert (first.cost, first.converged) == (again.cost, again.converged)
    assert torch.equal(first.predicted, again.predicted)


def test_the_cost_is_the_one_that_wins_on_the_held_out_part():
    train, labels, test, _ = digit_features()
    held_out = svm._held_out(labels.numpy(), 0.2, seed=1)
    accuracies = {}
    for cost in COSTS:
        fitted = LinearSVC(C=cost, random_state=1, tol=1e-3).fit(
            train[~held_out], labels[~held_out]
        )
        accuracies[cost] = fitted.score(train[held_out], labels[held_out])
    assert classify(train, labels, test, COSTS, 0.2, seed=1).cost == max(
        accuracies, key=accuracies.__getitem__
    )


def test_all_training_images_serve_once_the_cost_is_chosen():
    train, labels, test, _ = digit_features()
    fitted = LinearSVC(C=1.0, dual="auto", random_state=1, tol=1e-3)
    expected = fitted.fit(train.double(), labels).predict(test.double())
    got = classify(train, labels, test, (1.0,), 0.2, seed=1)
    assert np.array_equal(got.predicted, expected)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.99])
def test_every_class_is_held_out_in_part_and_never_whole(fraction):
    labels = np.repeat([3, 5, 8], [2, 10, 101])
    held_out = svm._held_out(labels, fraction, seed=0)
    for label, count in [(3, 2), (5, 10), (8, 101)]:
        num = held_out[labels == label].sum()
        assert 1 <= num < count
        assert num == min(count - 1, max(1, round(fraction * count)))


def test_a_class_of_one_image_stays_in_training():
    assert not svm._held_out(np.array([0, 1, 1]), 0.5, seed=0)[0]


@pytest.mark.parametrize("num_train", [600, 40])  # more rows than columns, and fewer
def test_fewer_columns_make_the_same_classifier(num_train, monkeypatch):
    train, labels, test, _ = digit_features()
    rotation = torch.linalg.qr(torch.randn(192, 192, generator=torch.Generator().manual_seed(0)))[0]
    train, test = (features.repeat(1, 3) @ rotation for features in (train, test))
    train, labels = train[:num_train], labels[:num_train]
    spanned = svm._onto_span(train, test)
    assert spanned[0].shape[1] <= min(num_train, 64)
    np.testing.assert_allclose(spanned[0] @ spanned[1].T, train @ test.T, atol=1e-5)
    reduced = classify(train, labels, test, (1.0,), 0.2, seed=0)
    monkeypatch.setattr(svm, "MAX_GRAM_SIDE", 0)
    whole = classify(train, labels, test, (1.0,), 0.2, seed=0)
    assert (reduced.predicted == whole.predicted).double().mean() > 0.99


def test_a_fit_that_does_not_converge_is_reported_without_a_warning(monkeypatch):
    monkeypatch.setattr(svm, "MAX_ITERATIONS", 2)
    train, labels, test, truth = digit_features()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = classify(train, labels, test, (10.0,), 0.2, seed=0)
    assert not result.converged
    assert (result.predicted == truth).double().mean() > 0.5


def test_costs_without_anything_to_hold_out_are_refused():
    features = torch.eye(3)
    with pytest.raises(ValueError, match="nothing can be held out to choose between svm_costs"):
        classify(features, torch.arange(3), features, COSTS, 0.2, seed=0)
    assert classify(features, torch.arange(3), features, (1.0,), 0.2, seed=0).cost == 1.0
