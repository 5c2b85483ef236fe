"""Configuration of Sandblaster. Light: imports neither torch nor distributed."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.batch.config import LbfgsConfig, OptimiserConfig
from engine.config import STRICT, TrainingConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PhaseConfig:
    """One stretch of a run by one algorithm."""

    algorithm: Literal["downpour", "sandblaster"]
    share: float = Field(gt=0.0, le=1.0)  # of the run's num_epochs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SandblasterConfig(TrainingConfig):
    """Batch optimisation on the shards (Dean et al. 2012, 4.2).

    `num_epochs` is the budget: passes over the data, those of the line search included. In phases
    of Downpour, which may come before and between, `rule` and `schedule` are used.
    """

    name: Literal["sandblaster"] = "sandblaster"
    optimiser: OptimiserConfig = Field(default_factory=LbfgsConfig)
    portion_minibatches: int = Field(default=1, ge=1)  # mini-batches in one portion
    max_bundle: int = Field(default=8, ge=1)  # portions in one sum; single ones near the end
    max_copies: int = Field(default=2, ge=1)  # replicas that may work on one portion; 1: no backup
    deterministic: bool = False  # add in a fixed order: the same bits, whoever computes what
    #: In order only: portions that may be given out ahead of the one whose turn it is.
    order_window: int = Field(default=16, ge=1)
    validate_every_iterations: int = Field(default=10, ge=1)
    phases: tuple[PhaseConfig, ...] = ()  # none: the whole run is Sandblaster's

    def __post_init__(self) -> None:
        if self.phases and abs(sum(phase.share for phase in self.phases) - 1.0) > 1e-6:
            shares = ", ".join(f"{phase.share:g}" for phase in self.phases)
            raise ValueError(f"the shares of phases are {shares}: want them to add up to 1")
