"""A network rebuilt from its weight file alone, and the refusal of any other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.config import ModelConfig
from models.vgg import build_vgg
from models.vgg_weights import describe, load_vgg
from models.weights import WeightFileError, save_weights

CONFIG = ModelConfig(
    name="C", num_classes=None, input_size=32, width_factor=1 / 16, head_widths=(6, 5), seed=4
)
NAMES, MEAN = ("cat", "cow", "dog"), (120.5, 110.25, 100.1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, build_vgg(CONFIG, 3).state_dict(), describe(CONFIG, 3, NAMES, MEAN))
    return path


def test_the_file_alone_gives_the_same_network_ready_for_evaluation(saved):
    model, description = load_vgg(saved)
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(batch), build_vgg(CONFIG, 3).eval()(batch))
    assert not model.training
    assert description.model == replace(CONFIG, num_classes=3)
    assert (description.class_names, description.mean_rgb) == (NAMES, MEAN)


def test_a_loaded_network_can_be_trained_on(saved):
    model, _ = load_vgg(saved)
    model(torch.ones(1, 3, 32, 32)).sum().backward()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_provenance_comes_back_and_is_free_to_differ(tmp_path):
    described = describe(CONFIG, 3, NAMES, MEAN, {"num_steps": 12})
    save_weights(tmp_path / "w", build_vgg(CONFIG, 3).state_dict(), described)
    _, description = load_vgg(tmp_path / "w", {"model": described["model"]})
    assert description.provenance == {"num_steps": 12}


def test_what_only_training_reads_may_differ(saved):
    other = replace(CONFIG, seed=9, dropout=0.1, initialisation="he", init_std=1.0)
    load_vgg(saved, describe(other, 3, NAMES, MEAN))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "D", 'model.name: found "C", expected "D"'),
        ("input_size", 64, "model.input_size: found 32, expected 64"),
        ("input_std", 64.0, "model.input_std: found 1.0, expected 64.0"),
        ("width_factor", 0.5, "model.width_factor: found 0.0625, expected 0.5"),
        ("head_widths", (6, 6), r"model.head_widths: found \[6, 5\], expected \[6, 6\]"),
    ],
)
def test_a_network_that_differs_in_one_field_is_refused_by_its_name(saved, field, value, message):
    with pytest.raises(WeightFileError, match=message):
        load_vgg(saved, describe(replace(CONFIG, **{field: value}), 3, NAMES, MEAN))


def test_other_classes_and_another_mean_are_refused_together(saved):
    with pytest.raises(WeightFileError) as error:
        load_vgg(saved, describe(CONFIG, 2, ("cat", "cow"), (0.0, 0.0, 0.0)))
    for field in ("model.num_classes: found 3", "class_names: found", "mean_rgb: found"):
        assert field in str(error.value)


def test_tensors_that_do_not_fit_the_described_network_are_each_named(tmp_path):
    tensors = build_vgg(CONFIG, 3).state_dict()
    del tensors["features.0.bias"]
    tensors["classifier.6.weight"] = tensors["classifier.6.weight"].double()
    tensors["features.99.weight"] = torch.zeros(1)
    save_weights(tmp_path / "w", tensors, describe(CONFIG, 3, NAMES, MEAN))
    with pytest.raises(WeightFileError) as error:
        load_vgg(tmp_path / "w")
    assert str(error.value).splitlines()[1:] == [
        "  features.0.bias: missing",
        "  features.99.weight: no such tensor in the network",
        "  classifier.6.weight: found float64 (3, 5), expected float32 (3, 5)",
    ]


def test_weights_without_a_vgg_s_description_are_refused(tmp_path):
    save_weights(tmp_path / "w", {"a": torch.zeros(1)}, {"model": {"name": "Z"}})
    with pytest.raises(WeightFileError, match="does not describe a VGG network"):
        load_vgg(tmp_path / "w")


def test_class_names_are_as_many_as_classes():
    with pytest.raises(ValueError, match=r"3 class names for model\.num_classes=4"):
        describe(CONFIG, 4, NAMES, MEAN)
