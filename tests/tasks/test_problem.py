"""Image classification as the engine sees it."""

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from data.config import InputConfig
from data.manifest import read_manifest
from data.test_images import TestReader
from engine.ledger import Lease
from models.config import ModelConfig
from models.vgg import build_vgg
from tasks.problem import ImageProblemFactory, measure_centre_view, num_classes

MODEL = ModelConfig(
    name="A",
    num_classes=None,
    input_size=32,
    width_factor=0.0625,
    head_widths=(8, 8),
    initialisation="he",
    input_std=75.0,
    dropout=0.0,
)


@pytest.fixture(scope="module")
def factory(staged_digits: Path) -> ImageProblemFactory:
    reading = InputConfig(side_min=32, side_max=32, crop_size=32, colour_shift_std=0.0)
    return ImageProblemFactory(
        staged=staged_digits, input=reading, model=MODEL, seed=0, side=32, batch_size=16
    )


def test_a_factory_that_travelled_builds_the_same_problem(factory: ImageProblemFactory) -> None:
    there = pickle.loads(pickle.dumps(factory))()
    here = factory()
    assert torch.equal(there.initial(), here.initial())
    assert there.layout == here.layout
    assert list(there.unit_sizes) == [60, 60]


def test_a_lease_gives_its_samples_once_and_the_same_to_everybody(
    factory: ImageProblemFactory,
) -> None:
    lease = Lease(id=1, epoch=0, unit=1, start=10, stop=45)
    one, other = (list(factory().minibatches(lease, 16)) for _ in range(2))
    assert [minibatch.num_samples for minibatch in one] == [16, 16, 3]
    for mine, theirs in zip(one, other, strict=True):
        assert torch.equal(mine.payload[0], theirs.payload[0])
        assert torch.equal(mine.payload[1], theirs.payload[1])


def test_the_gradient_is_that_of_the_mean_loss(factory: ImageProblemFactory) -> None:
    problem = factory()
    ((images, labels), _), *_ = problem.minibatches(Lease(1, 0, 0, 0, 16), 16)
    grad = torch.empty(problem.layout.size)
    loss = problem.gradient_(problem.initial(), (images, labels), grad)
    network = build_vgg(MODEL, 10).to(problem.device)
    expected = F.cross_entropy(network(images.to(problem.device)), labels.to(problem.device))
    expected.backward()
    assert loss == pytest.approx(expected.item())
    expected_grad = torch.cat([p.grad.cpu().reshape(-1) for p in network.parameters()])
    torch.testing.assert_close(grad, expected_grad)


def test_validation_measures_the_first_test_images_only(factory: ImageProblemFactory) -> None:
    staged = factory.staged
    network = build_vgg(MODEL, 10).eval()
    mean_rgb = read_manifest(staged).mean_rgb
    measured = measure_centre_view(network, staged, mean_rgb, side=32, batch_size=7, max_images=25)
    samples = [sample for _, sample in zip(range(25), TestReader(staged), strict=False)]
    images = torch.stack([torch.from_numpy(image.copy()) for image, _ in samples])
    inputs = images.permute(0, 3, 1, 2).float() - torch.tensor(mean_rgb).view(1, 3, 1, 1)
    inputs = F.interpolate(inputs, (32, 32), mode="bilinear", antialias=True)
    with torch.inference_mode():
        logits = network(inputs)
    labels = torch.tensor([label for _, label in samples])
    wrong = int((logits.argmax(1) != labels).sum())
    assert measured["top1_error"] == pytest.approx(wrong / 25)
    assert measured["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)


def test_another_number_of_classes_than_the_data_has_is_refused(staged_digits: Path) -> None:
    manifest = read_manifest(staged_digits)
    with pytest.raises(ValueError, match=r"model.num_classes=1000, but digits has 10 classes"):
        num_classes(ModelConfig(name="A"), manifest)
    assert num_classes(MODEL, manifest) == 10
