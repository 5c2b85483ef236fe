"""The names and defaults of all settings, read from the dataclasses, so that YAML repeats none."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from omegaconf import MISSING
from pydantic import TypeAdapter

from conf.schema import PathsConfig, RunConfig
from data.config import DataConfig
from engine.config import ClusterConfig, TrainingConfig
from evaluation.config import EvaluationConfig, TransferConfig
from models.config import ModelConfig

# What all options of a group share. `algorithm` and its rule are unions: what only one of their
# members has is written out in that member's file.
GROUPS: Final[dict[str, type]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "algorithm": TrainingConfig,
    "cluster": ClusterConfig,
    "evaluation": EvaluationConfig,
    "transfer": TransferConfig,
    "paths": PathsConfig,
}

# The members of a union go by these names; the group's option is the one way to choose.
CHOSEN_BY_GROUP: Final = {
    "algorithm.name": "algorithm",
    "algorithm.rule.name": "algorithm/rule",
    "algorithm.optimiser.name": "algorithm/optimiser",
}


def default_settings() -> dict[str, Any]:
    """Every setting at its default; one without a default is `???`, to be given by an option."""
    return {"experiment": "none"} | {name: _defaults(kind) for name, kind in GROUPS.items()}


def _defaults(kind: type) -> dict[str, Any]:
    schema = TypeAdapter(kind).json_schema()
    required = schema.get("required", ())
    return {
        name: field.get("default", MISSING)
        for name, field in schema["properties"].items()
        if "default" in field or name in required
    }


@cache
def every_key() -> frozenset[str]:
    """The dotted names of all settings and sections, whichever options are chosen."""
    schema = TypeAdapter(RunConfig).json_schema()
    return frozenset(_keys(schema, schema["$defs"], prefix=""))


def _keys(node: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[str]:
    if "$ref" in node:
        node = definitions[node["$ref"].removeprefix("#/$defs/")]
    for member in (*node.get("oneOf", ()), *node.get("anyOf", ())):
        yield from _keys(member, definitions, prefix)
    for name, field in node.get("properties", {}).items():
        yield prefix + name
        yield from _keys(field, definitions, f"{prefix}{name}.")
