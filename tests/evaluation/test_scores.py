"""Posteriors of the fast evaluation against one view at a time."""

import pytest
import torch

from evaluation.scores import dense_posteriors, multi_crop_posteriors
from tests.references.dense import dense_posterior
from tests.references.multi_crop import multi_crop_posterior
from tests.references.subjects import MEAN_RGB, noise_images, tiny_vgg

SHAPES = [(28, 28), (45, 70), (28, 28), (70, 45), (28, 28)]


@pytest.mark.parametrize("input_size", [32, 64])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_dense_posteriors_are_those_of_sliding_windows(input_size, batch_size):
    model, images = tiny_vgg(input_size=input_size), noise_images(SHAPES)
    sides = (input_size, input_size + 8, input_size + 40)
    got = dense_posteriors(model, images, MEAN_RGB, sides, batch_size)
    with torch.no_grad():
        rows = [dense_posterior(model.eval(), image, MEAN_RGB, sides) for image in images]
    torch.testing.assert_close(got, torch.stack(rows), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("crops_per_side", [2, 5])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_multi_crop_posteriors_are_those_of_a_loop_over_crops(crops_per_side, batch_size):
    model, images = tiny_vgg(), noise_images(SHAPES[:3])
    sides = (32, 34, 40)
    got = multi_crop_posteriors(model, images, MEAN_RGB, sides, batch_size, crops_per_side)
    with torch.no_grad():
        rows = [
            multi_crop_posterior(model.eval(), image, MEAN_RGB, sides, crops_per_side)
            for image in images
        ]
    torch.testing.assert_close(got, torch.stack(rows), atol=1e-5, rtol=1e-4)


def both_methods(model, images, sides):
    yield dense_posteriors(model, images, MEAN_RGB, sides, 8)
    yield multi_crop_posteriors(model, images, MEAN_RGB, sides, 8, 3)


def test_posteriors_sum_to_one_and_are_not_all_alike():
    for posteriors in both_methods(tiny_vgg(), noise_images(SHAPES), (32, 40)):
        torch.testing.assert_close(posteriors.sum(1), torch.ones(len(SHAPES)))
        assert posteriors.std(0).max() > 0.01


def test_an_image_and_its_mirror_are_judged_alike():
    images = noise_images([(28, 28)] * 3)
    mirrored = [image[:, ::-1] for image in images]
    model, sides = tiny_vgg(), (64,)  # a multiple of 32, so that no cell falls off one side only
    for ours, theirs in zip(
        both_methods(model, images, sides), both_methods(model, mirrored, sides), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_network_stays_in_training_mode_but_drops_nothing_out_meanwhile():
    model, images = tiny_vgg().train(), noise_images(SHAPES)
    for first, again in zip(
        both_methods(model, images, (36,)), both_methods(model, images, (36,)), strict=True
    ):
        assert torch.equal(first, again)
    assert all(module.training for module in model.modules())


def test_posteriors_can_be_used_in_ordinary_torch_code():
    for posteriors in both_methods(tiny_vgg(), noise_images(SHAPES), (36,)):
        weights = torch.ones(7, requires_grad=True)
        (posteriors @ weights).sum().backward()
        assert weights.grad is not None


def test_a_scale_below_the_input_size_is_refused():
    with pytest.raises(ValueError, match=r"test sides \[31, 16\] are below model.input_size=32"):
        dense_posteriors(tiny_vgg(), noise_images(SHAPES), MEAN_RGB, (31, 40, 16), 8)


def test_a_diverged_network_is_refused_instead_of_scored():
    model = tiny_vgg()
    model.classifier[6].bias.data[2] = float("nan")
    with pytest.raises(FloatingPointError, match="diverged"):
        dense_posteriors(model, noise_images(SHAPES), MEAN_RGB, (32,), 8)
