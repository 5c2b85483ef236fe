"""VGG networks A to E (Simonyan & Zisserman 2015, table 1), whole or narrowed."""

import math
from collections.abc import Iterable, Iterator
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import FeatureLayer, ModelConfig, VggName
from models.initialisation import initialise_
from models.normalisation import LocalResponseNorm

# Table 1. A number is a 3x3 convolution with that many output channels, "/1" makes it 1x1 (column C
# only); ReLU follows each. The head is the same everywhere: FC6, FC7, FC8.
COLUMNS: Final[dict[VggName, str]] = {
    "A": "64 pool 128 pool 256 256 pool 512 512 pool 512 512 pool",
    "A-LRN": "64 lrn pool 128 pool 256 256 pool 512 512 pool 512 512 pool",
    "B": "64 64 pool 128 128 pool 256 256 pool 512 512 pool 512 512 pool",
    "C": "64 64 pool 128 128 pool 256 256 256/1 pool 512 512 512/1 pool 512 512 512/1 pool",
    "D": "64 64 pool 128 128 pool 256 256 256 pool 512 512 512 pool 512 512 512 pool",
    "E": ("64 64 pool 128 128 pool 256 256 256 256 pool 512 512 512 512 pool 512 512 512 512 pool"),
}
STRIDE: Final = 32  # five poolings halve the side: pixels between neighbouring cells of a score map


class Vgg(nn.Module):
    """One column of Table 1 with its three fully connected layers.

    State-dict keys are torchvision's (`features.N`, `classifier.0`, `.3`, `.6`), so that its files
    fit A, B, D and E. Column A-LRN has one layer more, after the first ReLU: there every later
    `features` index is one higher than in column A.

    The layers are built on torch's current device with torch's own initialisation; `build_vgg`
    gives a network that is initialised as configured.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.input_size = config.input_size
        self.input_std = config.input_std
        self.num_classes = num_classes
        self.features = nn.Sequential(*_feature_layers(COLUMNS[config.name], config.width_factor))
        cells = (config.input_size // STRIDE) ** 2
        fc6, fc7 = config.head_widths
        self.penultimate_width = fc7
        self.classifier = nn.Sequential(
            nn.Linear(_scaled(512, config.width_factor) * cells, fc6),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(fc6, fc7),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(fc7, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (N, K) before the softmax, of images (N, 3, input_size, input_size).

        Images are RGB minus the training set's mean, on the scale 0 to 255. The network itself
        divides them by `input_std`, so that readers and weight files need not know of it. The paper
        does not divide; but then "he" starts at a loss above 300 and diverges at any usual rate.

        Raises:
            ValueError: for another image size; `score_map` takes larger images.
        """
        if tuple(images.shape[1:]) != (3, self.input_size, self.input_size):
            raise ValueError(
                f"images have shape {tuple(images.shape)}, want (N, 3, {self.input_size}, "
                f"{self.input_size}): use score_map for images larger than model.input_size"
            )
        scores: Tensor = self.classifier(self._feature_maps(images).flatten(1))
        return scores

    def score_map(self, images: Tensor) -> Tensor:
        """Class scores by position, (N, K, h, w), of images (N, 3, H, W) (section 3.2).

        The fully connected layers act as convolutions over views of their own weights: FC6 with a
        kernel of input_size / 32, FC7 and FC8 with 1x1. Poolings round down, so
        h = H // 32 - input_size // 32 + 1; an image of exactly input_size gives `forward`'s scores
        in one cell.

        Raises:
            ValueError: when a side is below input_size.
        """
        return _as_convolutions(self.classifier, self._large_feature_maps(images))

    def penultimate_map(self, images: Tensor) -> Tensor:
        """FC7's activations after the ReLU by position, (N, head_widths[1], h, w).

        Images and positions are those of `score_map`; in training mode FC6's dropout acts.
        """
        up_to_fc7_relu = list(self.classifier)[:5]
        return _as_convolutions(up_to_fc7_relu, self._large_feature_maps(images))

    def feature_map(self, images: Tensor, layer: FeatureLayer) -> Tensor:
        """Activations at `layer` by position, (N, feature_width(layer), h, w)."""
        if layer == "fc7":
            return self.penultimate_map(images)
        return self._feature_maps(images, self._up_to(layer))

    def feature_width(self, layer: FeatureLayer) -> int:
        """Number of maps that `feature_map` gives."""
        if layer == "fc7":
            return self.penultimate_width
        convolutions = [m for m in self._up_to(layer) if isinstance(m, nn.Conv2d)]
        return convolutions[-1].out_channels

    def _up_to(self, pooling: FeatureLayer) -> nn.Sequential:
        places = [i for i, m in enumerate(self.features) if isinstance(m, nn.MaxPool2d)]
        last = places[int(pooling.removeprefix("pool")) - 1]
        return nn.Sequential(*list(self.features)[: last + 1])

    def _large_feature_maps(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < self.input_size:
            raise ValueError(
                f"images have shape {tuple(images.shape)}, want (N, 3, H, W) with both sides "
                f"at least model.input_size={self.input_size}"
            )
        return self._feature_maps(images)

    def _feature_maps(self, images: Tensor, layers: nn.Sequential | None = None) -> Tensor:
        # Measured on one core, quarter-width A on 32x32: channels_last makes inference 2.1 times
        # and a training step 1.25 times as fast as the default order.
        scaled = images.contiguous(memory_format=torch.channels_last) / self.input_std
        maps: Tensor = (layers or self.features)(scaled)
        return maps


def build_vgg(config: ModelConfig, num_classes: int) -> Vgg:
    """Build a network whose weights are drawn from config.seed; global random state is untouched.

    Raises:
        ValueError: when config.num_classes is given and differs from num_classes.
    """
    if config.num_classes is not None and config.num_classes != num_classes:
        raise ValueError(
            f"model.num_classes={config.num_classes}, but {num_classes} classes are asked for: "
            "set model.num_classes=null to take the data set's number"
        )
    with torch.device("meta"):  # torch's own draws would be wasted, and touch global state
        model = Vgg(config, num_classes)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(config.seed)
    initialise_(model, config.initialisation, config.init_std, generator)
    return model


def _feature_layers(column: str, width_factor: float) -> Iterator[nn.Module]:
    channels = 3
    for word in column.split():
        if word == "pool":
            yield nn.MaxPool2d(kernel_size=2, stride=2)
        elif word == "lrn":
            yield LocalResponseNorm()
        else:
            width, _, kernel = word.partition("/")
            kernel_size = int(kernel or 3)
            num_maps = _scaled(int(width), width_factor)
            yield nn.Conv2d(channels, num_maps, kernel_size, padding=kernel_size // 2)
            yield nn.ReLU(inplace=True)
            channels = num_maps


def _scaled(channels: int, width_factor: float) -> int:
    return max(1, round(channels * width_factor))


def _as_convolutions(head: Iterable[nn.Module], maps: Tensor) -> Tensor:
    for layer in head:
        if isinstance(layer, nn.Linear):
            side = math.isqrt(layer.in_features // maps.shape[1])
            kernel = layer.weight.view(layer.out_features, maps.shape[1], side, side)
            maps = F.conv2d(maps, kernel, layer.bias)
        else:
            maps = layer(maps)
    return maps
