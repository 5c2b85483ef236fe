"""Table 1 and table 2 of Simonyan & Zisserman 2015, and the names of the tensors."""

import pytest
import torch
from torch import nn

from models.config import ModelConfig, VggName
from models.vgg import COLUMNS, Vgg, build_vgg

NUM_PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}
NUM_WEIGHT_LAYERS = {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}
CONVOLUTIONS = {
    "A": [0, 3, 6, 8, 11, 13, 16, 18],
    "A-LRN": [0, 4, 7, 9, 12, 14, 17, 19],
    "B": [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    "C": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "D": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "E": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
}


def layout(config: ModelConfig, num_classes: int = 1000) -> Vgg:
    with torch.device("meta"):
        return Vgg(config, num_classes)


def test_the_table_has_the_six_columns_of_the_paper():
    assert list(COLUMNS) == ["A", "A-LRN", "B", "C", "D", "E"]


@pytest.mark.parametrize("name", COLUMNS)
def test_full_size_networks_have_exactly_the_published_number_of_parameters(name: VggName):
    model = layout(ModelConfig(name=name))
    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", COLUMNS)
def test_the_weight_layers_are_as_many_as_the_table_counts(name: VggName):
    layers = [m for m in layout(ModelConfig(name=name)).modules() if hasattr(m, "weight")]
    assert len(layers) == NUM_WEIGHT_LAYERS[name]


@pytest.mark.parametrize("name", COLUMNS)
def test_state_dict_keys_are_those_of_torchvision(name: VggName):
    layers = [f"features.{i}" for i in CONVOLUTIONS[name]]
    layers += ["classifier.0", "classifier.3", "classifier.6"]
    expected = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert list(layout(ModelConfig(name=name)).state_dict()) == expected


def test_column_c_has_one_by_one_convolutions_without_padding_third_in_stages_3_4_5():
    features = layout(ModelConfig(name="C")).features
    one_by_one = {i: m for i, m in enumerate(features) if getattr(m, "kernel_size", 0) == (1, 1)}
    assert list(one_by_one) == [14, 21, 28]
    assert all(m.padding == (0, 0) and m.stride == (1, 1) for m in one_by_one.values())


@pytest.mark.parametrize("name", COLUMNS)
def test_every_other_convolution_is_three_by_three_and_keeps_the_size(name: VggName):
    convolutions = [m for m in layout(ModelConfig(name=name)).features if hasattr(m, "padding")]
    for m in convolutions:
        if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1):
            assert (m.kernel_size, m.stride, m.padding) == ((3, 3), (1, 1), (1, 1))


def test_width_input_size_and_head_change_the_shapes_they_name():
    config = ModelConfig(name="D", input_size=96, width_factor=0.5, head_widths=(40, 24))
    state = layout(config, num_classes=7).state_dict()
    assert state["features.0.weight"].shape == (32, 3, 3, 3)
    assert state["classifier.0.weight"].shape == (40, 256 * 3 * 3)
    assert state["classifier.3.weight"].shape == (24, 40)
    assert state["classifier.6.weight"].shape == (7, 24)


def test_no_width_factor_leaves_a_layer_without_channels():
    state = layout(ModelConfig(name="A", width_factor=0.001), 10).state_dict()
    assert state["features.0.weight"].shape == (1, 3, 3, 3)


def test_dropout_follows_the_first_two_fully_connected_layers_at_the_configured_rate():
    head = layout(ModelConfig(name="A", dropout=0.25)).classifier
    assert {i: m.p for i, m in enumerate(head) if isinstance(m, nn.Dropout)} == {2: 0.25, 5: 0.25}


def test_another_number_of_classes_than_configured_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"num_classes=1000, but 10 classes.*num_classes=null"):
        build_vgg(ModelConfig(name="A"), 10)
