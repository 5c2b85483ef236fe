"""The trained network as a file, and back."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from data.manifest import Manifest
from engine.layout import Layout
from engine.result import TrainingResult
from models.config import ModelConfig
from models.vgg import Vgg, build_vgg
from models.vgg_weights import VggDescription, describe, load_vgg
from models.weights import WeightFileError, load_weights, save_weights

CLASSES_SHOWN: Final = 5  # in a message


def save_network(
    path: Path,
    result: TrainingResult,
    layout: Layout,
    model: ModelConfig,
    manifest: Manifest,
    made_from: Mapping[str, str],
) -> None:
    """Write trained parameters with all that is needed to use them on images."""
    description = describe(
        model,
        len(manifest.class_names),
        manifest.class_names,
        manifest.mean_rgb,
        {
            "data": manifest.name,
            "num_samples": result.num_samples,
            "num_steps": result.num_steps,
            "made_from": dict(made_from),
        },
    )
    save_weights(path, layout.views(result.parameters), description)


def load_network(
    path: Path, model: ModelConfig, class_names: Sequence[str] | None = None
) -> tuple[Vgg, VggDescription]:
    """The network in a weight file, and the file's description.

    Args:
        class_names: of the data that it is to be used on, whose labels have to mean the same; None:
            labels do not matter.

    Raises:
        WeightFileError: damaged, or the weights of another network than `model` describes, or of
            one trained on other classes.
    """
    plain: dict[str, Any] = TypeAdapter(ModelConfig).dump_python(model, mode="json")
    if model.num_classes is None:  # as many as the data has
        del plain["num_classes"]
    network, description = load_vgg(path, expected={"model": plain})
    if class_names is not None:
        _require_classes(path, description.class_names, class_names)
    return network, description


def _require_classes(path: Path, trained: Sequence[str], wanted: Sequence[str]) -> None:
    different = [
        f"{label} is {there!r} there, {here!r} here"
        for label, (there, here) in enumerate(zip_longest(trained, wanted))
        if there != here
    ]
    if different:
        raise WeightFileError(
            f"{path}: was trained on other classes: {len(different)} labels differ: "
            f"{'; '.join(different[:CLASSES_SHOWN])}"
        )


def made_from(path: Path) -> dict[str, str]:
    """The settings that decided the weights in a file."""
    provenance: Any = load_weights(path)[1].get("provenance", {})
    return dict(provenance.get("made_from", {}))


def untrained_network(model: ModelConfig, description: VggDescription) -> Vgg:
    """The same network as it was before training."""
    return build_vgg(model, len(description.class_names))
