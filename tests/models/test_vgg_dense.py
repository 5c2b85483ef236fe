"""The fully connected layers as convolutions (Simonyan & Zisserman 2015, section 3.2)."""

import pytest
import torch
from torch import Tensor

from models.config import ModelConfig, VggName
from models.vgg import COLUMNS, Vgg, build_vgg
from tests.references import dense


def tiny(name: VggName = "A", input_size: int = 32, **fields: object) -> Vgg:
    config = ModelConfig(
        name=name,
        num_classes=None,
        input_size=input_size,
        width_factor=1 / 16,
        head_widths=(12, 9),
        initialisation="he",
        seed=3,
        **fields,
    )
    return build_vgg(config, num_classes=5).eval()


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("input_size", [32, 96])
def test_on_an_image_of_the_input_size_the_score_map_is_the_forward_pass(name, input_size):
    model, batch = tiny(name, input_size), images(2, 3, input_size, input_size)
    torch.testing.assert_close(model.score_map(batch)[:, :, 0, 0], model(batch))


@pytest.mark.parametrize("name", ["A", "A-LRN", "C"])
@pytest.mark.parametrize("input_size", [32, 64])
def test_the_score_map_is_the_head_slid_over_the_feature_maps(name, input_size):
    model, batch = tiny(name, input_size), images(2, 3, 130, 97)
    torch.testing.assert_close(model.score_map(batch), dense.score_map(model, batch))


@pytest.mark.parametrize(
    ("side", "cells"), [(224, 1), (256, 2), (288, 3), (352, 5), (384, 6), (416, 7), (512, 10)]
)
def test_a_224_network_scores_as_many_positions_as_the_paper_s_scales_give(side, cells):
    with torch.device("meta"):
        model = Vgg(ModelConfig(name="A", width_factor=0.1, head_widths=(4, 4)), 10)
        assert model.score_map(torch.empty(1, 3, side, side + 20)).shape[2] == cells


def test_an_interior_cell_is_its_window_seen_with_its_neighbourhood():
    # A's receptive field reaches 59 pixels beyond the 32 of a cell: 64 pixels of surroundings on
    # the 32-pixel grid are enough for the cell to take exactly the value it has in the whole image.
    model, image = tiny("A"), images(1, 3, 224, 224)
    whole = model.score_map(image)
    for row, column in [(2, 2), (3, 4), (4, 3)]:
        top, left = 32 * row - 64, 32 * column - 64
        alone = model.score_map(image[:, :, top : top + 160, left : left + 160])
        torch.testing.assert_close(whole[:, :, row, column], alone[:, :, 2, 2])


def test_a_cell_sees_real_neighbours_where_a_crop_sees_zero_padding():
    model, image = tiny("A"), images(1, 3, 96, 96)
    crop = model(image[:, :, 32:64, 32:64])
    assert not torch.allclose(model.score_map(image)[:, :, 1, 1], crop, rtol=1e-3)


def test_the_penultimate_map_is_what_the_last_layer_makes_scores_of():
    model, batch = tiny(), images(2, 3, 64, 96)
    features = model.penultimate_map(batch)
    assert features.shape == (2, 9, 2, 3)
    assert (features >= 0).all()
    scores = model.classifier[6](features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(model.score_map(batch), scores)


def test_dropout_acts_in_training_and_not_in_evaluation():
    model, batch = tiny(dropout=0.5), images(4, 3, 32, 32)
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))


def test_the_network_divides_its_input_by_input_std_and_leaves_the_batch_alone():
    batch = images(2, 3, 32, 32)
    before = batch.clone()
    torch.testing.assert_close(tiny(input_std=64.0)(64 * batch), tiny()(batch))
    tiny()(batch)
    assert torch.equal(batch, before)


def test_scores_do_not_depend_on_the_memory_order_of_the_images():
    model, batch = tiny(), images(2, 3, 32, 32)
    rows_last = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(model(batch), model(rows_last))


def test_every_parameter_receives_a_gradient():
    model = tiny("C")
    model(images(8, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_forward_refuses_a_larger_image_and_names_the_method_that_takes_it():
    with pytest.raises(ValueError, match=r"\(1, 3, 64, 32\), want \(N, 3, 32, 32\).*score_map"):
        tiny()(images(1, 3, 64, 32))


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_a_score_map_of_small_or_misshapen_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"want \(N, 3, H, W\) with both sides at least .*=32"):
        tiny().score_map(images(*shape))
