"""Trained networks on disk, and whether they are those that were asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.manifest import read_manifest
from engine.layout import Layout
from engine.result import TrainingResult
from models.vgg import build_vgg
from models.weights import WeightFileError
from tasks.network import load_network, save_network
from tasks.training import is_trained
from tests.tasks.test_problem import MODEL

MADE_FROM = {"algorithm.n_push": "1"}


@pytest.fixture
def weights(tmp_path: Path, staged_digits: Path) -> Path:
    parameters = dict(build_vgg(MODEL, 10).named_parameters())
    layout = Layout.of(parameters)
    result = TrainingResult(layout.flatten(parameters) + 1, 100, 10, 1.5, already_complete=False)
    path = tmp_path / "weights.safetensors"
    save_network(path, result, layout, MODEL, read_manifest(staged_digits), MADE_FROM)
    return path


def test_a_network_comes_back_as_it_was_saved(weights: Path) -> None:
    network, description = load_network(weights, MODEL)
    for name, parameter in build_vgg(MODEL, 10).named_parameters():
        torch.testing.assert_close(network.get_parameter(name), parameter + 1)
    assert description.class_names == tuple(str(digit) for digit in range(10))
    assert description.provenance["num_samples"] == 100


def test_weights_of_another_network_are_refused_field_by_field(weights: Path) -> None:
    with pytest.raises(WeightFileError, match=r"model.name: found \"A\", expected \"B\""):
        load_network(weights, replace(MODEL, name="B"))


def test_a_network_trained_on_other_classes_is_refused_with_the_labels(weights: Path) -> None:
    digits = tuple("0123456789")
    load_network(weights, MODEL, digits)
    with pytest.raises(WeightFileError, match=r"2 labels differ: 1 is '1' there, '2' here; 2 is"):
        load_network(weights, MODEL, ("0", "2", "1", *digits[3:]))
    with pytest.raises(WeightFileError, match=r"1 labels differ: 10 is None there, 'ten' here"):
        load_network(weights, MODEL, (*digits, "ten"))


def test_a_network_is_trained_only_if_it_was_made_from_the_same(
    weights: Path, tmp_path: Path
) -> None:
    assert is_trained(weights, MADE_FROM)
    assert not is_trained(weights, {"algorithm.n_push": "4"})
    assert not is_trained(tmp_path / "none.safetensors", MADE_FROM)
