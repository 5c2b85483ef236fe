"""Errors against sorting and counting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics import mean_class_recall, outside_top_k, top_k_error
from tests.references import errors


@st.composite
def predictions(draw):
    num_classes, num_images = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    value = st.sampled_from([0.0, 0.25, 0.5, 1.0])  # few values, so that equal ones are common
    rows = st.lists(value, min_size=num_classes, max_size=num_classes)
    posteriors = draw(st.lists(rows, min_size=num_images, max_size=num_images))
    label = st.integers(0, num_classes - 1)
    labels = draw(st.lists(label, min_size=num_images, max_size=num_images))
    return posteriors, labels


@settings(max_examples=50)
@given(predictions(), st.integers(1, 8))
def test_the_error_is_that_of_sorting(prediction, k):
    posteriors, labels = prediction
    error = top_k_error(torch.tensor(posteriors), torch.tensor(labels), k)
    assert error == pytest.approx(errors.top_k_error(posteriors, labels, k))


@settings(max_examples=50)
@given(predictions())
def test_the_top_1_error_counts_where_argmax_is_wrong(prediction):
    posteriors, labels = map(torch.tensor, prediction)
    wrong = posteriors.argmax(1) != labels
    assert torch.equal(outside_top_k(posteriors, labels, 1), wrong)


def test_with_five_classes_or_fewer_nothing_is_outside_the_top_five():
    posteriors = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    assert top_k_error(posteriors, torch.arange(20) % 4, k=5) == 0.0


def test_a_constant_network_is_right_on_one_class_only():
    posteriors, labels = torch.full((10, 10), 0.1), torch.arange(10)
    assert top_k_error(posteriors, labels, 1) == pytest.approx(0.9)
    assert top_k_error(posteriors, labels, 5) == pytest.approx(0.5)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_beyond_the_classes_is_refused(label):
    with pytest.raises(ValueError, match="posteriors know the classes 0 to 2"):
        outside_top_k(torch.rand(2, 3), torch.tensor([0, label]), 1)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_mean_class_recall_weighs_every_class_that_occurs_alike(pairs):
    predicted, labels = zip(*pairs, strict=True)
    recall = mean_class_recall(torch.tensor(predicted), torch.tensor(labels))
    assert recall == pytest.approx(errors.mean_class_recall(predicted, labels))
