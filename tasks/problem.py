"""Image classification by VGG as the engine's `Problem`: where data, network and engine meet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.config import InputConfig
from data.manifest import Manifest, read_manifest
from data.minibatches import TrainingReader
from data.test_images import TestReader
from engine.config import Device
from engine.device import computing_device
from engine.ledger import Lease
from engine.problem import Minibatch
from engine.torch_problem import TorchProblem
from evaluation.batches import Rgb
from evaluation.inference import at_each_side
from evaluation.reading import blocks
from evaluation.views import centre_crop
from models.config import ModelConfig
from models.vgg import Vgg, build_vgg

#: Test images looked at during training: enough to steer by, the full measure comes at the end.
MAX_VALIDATION_IMAGES = 1000


@dataclass(frozen=True)
class ImageProblemFactory:
    """Builds the problem from files, in whichever process works on it.

    Attributes:
        staged: folder of tars and manifest.
        seed: of sample order and augmentation.
        side: test scale Q of the validation, pixels.
        batch_size: images per pass of the validation.
        device: where gradients and the validation are computed.
    """

    staged: Path
    input: InputConfig
    model: ModelConfig
    seed: int
    side: int
    batch_size: int
    device: Device = "auto"

    def __call__(self) -> TorchProblem:
        manifest = read_manifest(self.staged)
        reader = TrainingReader(self.staged, self.input, self.seed)
        return TorchProblem(
            build_vgg(self.model, num_classes(self.model, manifest)).to(
                computing_device(self.device)
            ),
            mean_loss,
            reader.tar_sizes,
            _leased(reader),
            self._measure(manifest.mean_rgb),
        )

    def _measure(self, mean_rgb: Rgb) -> Callable[[nn.Module], dict[str, float]]:
        def measure(module: nn.Module) -> dict[str, float]:
            assert isinstance(module, Vgg)
            return measure_centre_view(
                module, self.staged, mean_rgb, self.side, self.batch_size, MAX_VALIDATION_IMAGES
            )

        return measure


def num_classes(config: ModelConfig, manifest: Manifest) -> int:
    """Number of classes of the network for this data.

    Raises:
        ValueError: the configuration names another number than the data has.
    """
    found = len(manifest.class_names)
    if config.num_classes not in (None, found):
        raise ValueError(
            f"model.num_classes={config.num_classes}, but {manifest.name} has {found} classes: "
            f"set model.num_classes={found}, or null for as many as the data has"
        )
    return found


def mean_loss(module: nn.Module, payload: tuple[Tensor, Tensor]) -> Tensor:
    """Multinomial logistic loss over a mini-batch of images (N, 3, H, W) and labels (N,)."""
    images, labels = payload
    return F.cross_entropy(module(images), labels)


def measure_centre_view(
    model: Vgg, staged: Path, mean_rgb: Rgb, side: int, batch_size: int, max_images: int
) -> dict[str, float]:
    """Top-1 error and loss on the central crop of the first test images, at one test scale."""
    losses: list[Tensor] = []
    wrong: list[Tensor] = []
    for images, labels in blocks(islice(TestReader(staged), max_images)):
        logits = at_each_side(
            model,
            images,
            mean_rgb,
            [side],
            batch_size,
            lambda views: model(centre_crop(views, model.input_size)),
            model.num_classes,
        )[0]
        losses.append(F.cross_entropy(logits, labels, reduction="none"))
        wrong.append(logits.argmax(1) != labels)
    return {
        "top1_error": float(torch.cat(wrong).double().mean()),
        "loss": float(torch.cat(losses).mean()),
    }


def _leased(reader: TrainingReader) -> Callable[[Lease, int], Iterator[Minibatch]]:
    def minibatches(lease: Lease, size: int) -> Iterator[Minibatch]:
        read = reader.minibatches(lease.epoch, lease.unit, lease.start, lease.stop, size)
        for images, labels in read:
            yield Minibatch((images, labels), len(labels))

    return minibatches
