"""What a VGG's weight file says of itself, and the network rebuilt from the file alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from models.config import ModelConfig
from models.vgg import Vgg
from models.weights import Description, WeightFileError, load_weights

# They shaped the training, not the network: files that differ here alone are interchangeable.
TRAINING_ONLY: Final = frozenset({"dropout", "initialisation", "init_std", "seed"})


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class VggDescription:
    """What is needed beside the weights to use a network on an image."""

    model: ModelConfig  # num_classes is a number
    class_names: tuple[str, ...]  # in the order of the scores
    mean_rgb: tuple[float, float, float]  # subtracted from every pixel, 0 to 255
    provenance: dict[str, JsonValue] = Field(default_factory=dict)  # how it was trained; free

    def __post_init__(self) -> None:
        if self.model.num_classes != len(self.class_names):
            raise ValueError(
                f"{len(self.class_names)} class names for "
                f"model.num_classes={self.model.num_classes}: want one each"
            )


_VGG_DESCRIPTION: Final = TypeAdapter(VggDescription)


def describe(
    config: ModelConfig,
    num_classes: int,
    class_names: Sequence[str],
    mean_rgb: tuple[float, float, float],
    provenance: dict[str, JsonValue] | None = None,
) -> dict[str, JsonValue]:
    """Describe a network for `save_weights`.

    Args:
        provenance: whatever is worth knowing of how the weights came about.

    Raises:
        ValueError: when there is not one name per class.
    """
    description = VggDescription(
        model=replace(config, num_classes=num_classes),
        class_names=tuple(class_names),
        mean_rgb=mean_rgb,
        provenance=provenance or {},
    )
    plain: dict[str, JsonValue] = _VGG_DESCRIPTION.dump_python(description, mode="json")
    return plain


def load_vgg(path: Path, expected: Description | None = None) -> tuple[Vgg, VggDescription]:
    """Rebuild the network of a weight file, on the CPU and in evaluation mode.

    Args:
        expected: fields that the description must hold, its model's for example. What only training
            reads (dropout, initialisation, seed) may differ all the same.

    Raises:
        FileNotFoundError, WeightFileError: as `load_weights`; also when the tensors are not those
            of the described network, each listed by name.
    """
    wanted = None if expected is None else _without_training(expected)
    state, found = load_weights(path, wanted)
    try:
        description = _VGG_DESCRIPTION.validate_python(found)
    except ValidationError as error:
        raise WeightFileError(f"{path}: does not describe a VGG network: {error}") from error
    with torch.device("meta"):
        model = Vgg(description.model, len(description.class_names))
    _check_state(state, model.state_dict(), path)
    model.load_state_dict(state, assign=True)
    return model.eval(), description


def _without_training(description: Description) -> Description:
    model = description.get("model")
    if not isinstance(model, dict):
        return description
    kept = {field: value for field, value in model.items() if field not in TRAINING_ONLY}
    return {**description, "model": kept}


def _check_state(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    problems = [f"{name}: missing" for name in wanted if name not in found]
    problems += [f"{name}: no such tensor in the network" for name in found if name not in wanted]
    problems += [
        f"{name}: found {_kind(found[name])}, expected {_kind(tensor)}"
        for name, tensor in wanted.items()
        if name in found and _kind(found[name]) != _kind(tensor)
    ]
    if problems:
        raise WeightFileError(
            f"{path}: tensors do not fit the network it describes:\n  " + "\n  ".join(problems)
        )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
