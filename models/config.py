"""Configuration of the networks. Light: does not import torch."""

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

VggName = Literal["A", "A-LRN", "B", "C", "D", "E"]
Initialisation = Literal["he", "glorot", "normal", "paper"]
#: Where features for other data sets are taken: after FC7's ReLU (the paper), or after a pooling.
FeatureLayer = Literal["fc7", "pool5", "pool4", "pool3"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelConfig:
    """A column of Table 1 (Simonyan & Zisserman 2015), whole or narrowed.

    The defaults are the paper's network; `width_factor`, `head_widths` and `input_size` give
    smaller ones from the same code.
    """

    name: VggName
    num_classes: int | None = Field(default=1000, ge=2)  # None: the number in the manifest
    input_size: int = Field(default=224, ge=32, multiple_of=32)  # crop side in training, pixels
    input_std: float = Field(default=1.0, gt=0.0)  # pixels are divided by it; 1: as the paper
    width_factor: float = Field(default=1.0, gt=0.0, le=4.0)  # multiplies the conv channels
    head_widths: tuple[int, int] = (4096, 4096)  # FC6 and FC7
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    initialisation: Initialisation = "glorot"
    init_std: float = Field(default=0.01, gt=0.0)  # read by initialisation=normal only
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if min(self.head_widths) < 1:
            raise ValueError(f"head_widths={self.head_widths}: every width must be at least 1")
