"""The whole configuration of a run, checked across its groups; below it there is no DictConfig."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from data.config import BUILTIN_NAMES, DataConfig
from engine.algorithm import AlgorithmConfig
from engine.config import LOOPBACK, ClusterConfig
from evaluation.config import EvaluationConfig, TransferConfig
from models.config import ModelConfig

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PathsConfig:
    """Folders, relative to where the command was given unless absolute."""

    staged: Path = Path("staged")  # tars, one folder for each staged data set
    outputs: Path = Path("outputs")  # one folder for each run
    archives: Path = Path("archives")  # where data sets that are not built in are looked for
    # None: the experiment's name and a digest of the settings that decide the result. One plain
    # name, because overrides also arrive over an API and must not lead out of `outputs`.
    run_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """One run: what `conf.load.load` returns and every flow is given."""

    experiment: str = Field(default="none", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    data: DataConfig
    model: ModelConfig
    algorithm: AlgorithmConfig
    cluster: ClusterConfig
    evaluation: EvaluationConfig
    transfer: TransferConfig
    paths: PathsConfig


class Contradiction(NamedTuple):
    """Settings of different groups that cannot all hold, or that do not fit what is there."""

    keys: tuple[str, ...]
    text: str


Problems = Iterable[Contradiction]


def contradictions(config: RunConfig) -> Iterator[Contradiction]:
    """Yield what no single group's dataclass can see."""
    yield from _names(config)
    yield from _sizes(config)
    if config.algorithm.name == "synchronous" and config.cluster.host not in LOOPBACK:
        text = (
            f"cluster.host={config.cluster.host}, but algorithm=synchronous averages gradients by "
            "gloo or nccl, which have no TLS: it stays on loopback"
        )
        yield Contradiction(("cluster.host", "algorithm"), text)
    if config.cluster.allow_resharding and config.paths.run_name is None:
        text = (
            "cluster.allow_resharding=true goes on with a run that is there, but the usual name of "
            "a run changes with cluster.num_shards: give paths.run_name=NAME, its folder's name"
        )
        yield Contradiction(("cluster.allow_resharding", "paths.run_name"), text)


def _names(config: RunConfig) -> Iterator[Contradiction]:
    for name in config.transfer.datasets:
        if name not in BUILTIN_NAMES:
            have = ", ".join(BUILTIN_NAMES)
            text = f"transfer.datasets names {name!r}, which is no built-in data set: have {have}"
            yield Contradiction(("transfer.datasets",), text)


def _sizes(config: RunConfig) -> Iterator[Contradiction]:
    size, crop = config.model.input_size, config.data.input.crop_size
    if crop != size:
        text = (
            f"data.input.crop_size={crop} differs from model.input_size={size}: "
            "the crop is what the network is given"
        )
        yield Contradiction(("data.input.crop_size", "model.input_size"), text)
    sides = {
        "evaluation.single_side": (config.evaluation.single_side,),
        "evaluation.multi_sides": config.evaluation.multi_sides,
    }
    if config.transfer.datasets:
        sides["transfer.sides"] = config.transfer.sides
    for key, values in sides.items():
        if min(values) < size:
            text = (
                f"{key} has a test scale of {min(values)} pixels, below model.input_size={size}: "
                "the network's fully connected layers would not fit"
            )
            yield Contradiction((key, "model.input_size"), text)
