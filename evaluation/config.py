"""Configuration of evaluation and transfer. Light: does not import torch."""

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from models.config import FeatureLayer

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """Test scales and views (Simonyan & Zisserman 2015, 3.2 and 4)."""

    single_side: int = Field(default=384, ge=1)  # Q of the single-scale evaluation, pixels
    multi_sides: tuple[int, ...] = (256, 384, 512)  # the Qs of multi-scale and multi-crop
    crops_per_side: int = Field(default=5, ge=1)  # a 5x5 grid and flips: 50 crops per scale
    batch_size: int = Field(default=64, ge=1)  # of the input size; larger views count for more

    def __post_init__(self) -> None:
        if not self.multi_sides:
            raise ValueError("multi_sides is empty: want at least one test scale")
        if min(self.multi_sides) < 1:
            raise ValueError(f"multi_sides={self.multi_sides}: want sides of at least 1 pixel")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransferConfig:
    """Features of a trained network on other data sets (appendix B)."""

    datasets: tuple[str, ...] = ("digits", "animal-mnist")  # names of built-in data sets
    sides: tuple[int, ...] = (256, 384, 512)
    layer: FeatureLayer = "fc7"  # whose activations are the features
    grid: int = Field(default=1, ge=1)  # cells a side to average over; 1: all positions, the paper
    aggregation: Literal["average", "stack"] = "stack"
    svm_costs: tuple[float, ...] = (1.0, 10.0, 100.0)  # C; chosen on a validation part
    validation_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=64, ge=1)  # as in evaluation

    def __post_init__(self) -> None:
        for name in ("sides", "svm_costs"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: want at least one value")
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: want values above 0")
