"""The trained network as a file, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data.manifest import Manifest
from engine.layout import Layout
from engine.result import TrainingResult
from models.config import ModelConfig
from models.vgg import Vgg, build_vgg
from models.weights import load_weights, save_weights


def save_network(
    path: Path,
    result: TrainingResult,
    layout: Layout,
    model: ModelConfig,
    manifest: Manifest,
    made_from: Mapping[str, str],
) -> None:
    """Write trained parameters with all that is needed to use them on images."""
    description: dict[str, Any] = {
        "model": _plain(model),
        "data": manifest.name,
        "class_names": list(manifest.class_names),
        "mean_rgb": list(manifest.mean_rgb),
        "num_samples": result.num_samples,
        "num_steps": result.num_steps,
        "made_from": dict(made_from),
    }
    save_weights(path, layout.views(result.parameters), description)


def load_network(path: Path, model: ModelConfig) -> tuple[Vgg, dict[str, Any]]:
    """The network in a weight file, and the file's description.

    Raises:
        WeightFileError: damaged, or the weights of another network than `model` describes.
    """
    state, description = load_weights(path, expected={"model": _plain(model)})
    network = untrained_network(model, description)
    network.load_state_dict(state)
    return network, description


def untrained_network(model: ModelConfig, description: Mapping[str, Any]) -> Vgg:
    """The same network as it was before training."""
    return build_vgg(model, len(description["class_names"]))


def _plain(model: ModelConfig) -> dict[str, Any]:
    plain: dict[str, Any] = TypeAdapter(ModelConfig).dump_python(model, mode="json")
    return plain
