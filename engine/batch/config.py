"""Configuration of batch optimisers. Light: imports neither torch nor numpy."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.config import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ArmijoConfig:
    """Backtracking until the loss has fallen enough; tries after the first need no gradient."""

    name: Literal["armijo"] = "armijo"
    c1: float = Field(default=1e-4, gt=0.0, lt=1.0)  # share of the promised fall of the loss
    shrink: float = Field(default=0.5, gt=0.0, lt=1.0)  # next step length / this one
    max_trials: int = Field(default=30, ge=1)
    rounding: float = Field(default=1e-15, ge=0.0)  # relative error of a loss, forgiven


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WolfeConfig:
    """Search for a step with the strong Wolfe conditions (Nocedal & Wright 2006, 3.7)."""

    name: Literal["wolfe"] = "wolfe"
    c1: float = Field(default=1e-4, gt=0.0, lt=1.0)
    c2: float = Field(default=0.9, gt=0.0, lt=1.0)
    interval_tolerance: float = Field(default=0.1, ge=0.0)  # relative width at which to give up
    max_trials: int = Field(default=20, ge=1)
    #: Relative error of a loss; where the loss changes by less, the slopes alone decide. About
    #: 1e-7 for a problem that computes in single precision.
    rounding: float = Field(default=1e-15, ge=0.0)

    def __post_init__(self) -> None:
        if self.c1 >= self.c2:
            raise ValueError(f"c1={self.c1} must be below c2={self.c2}: no step might satisfy both")


SearchConfig = Annotated[ArmijoConfig | WolfeConfig, Field(discriminator="name")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BatchConfig:
    """When to stop; 0 switches a tolerance off."""

    max_iterations: int = Field(default=1000, ge=0)
    gradient_tolerance: float = Field(default=1e-5, ge=0.0)  # on the largest absolute element
    #: On the fall of the loss in an iteration, over the larger of the two losses and 1.
    loss_tolerance: float = Field(default=2e-9, ge=0.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LbfgsConfig(BatchConfig):
    """Limited-memory BFGS (Nocedal & Wright 2006, algorithm 7.5)."""

    name: Literal["lbfgs"] = "lbfgs"
    history_length: int = Field(default=10, ge=1, le=100)  # m, curvature pairs kept
    #: gram: one round trip a direction; two_loop: 2m of them, as in the DistBelief paper.
    form: Literal["gram", "two_loop"] = "gram"
    curvature_epsilon: float = Field(default=2.2e-16, ge=0.0)  # keep a pair if s.y > this * y.y
    line_search: SearchConfig = WolfeConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OwlqnConfig(BatchConfig):
    """L-BFGS for the loss + l1 * |x|_1 (Andrew & Gao 2007)."""

    name: Literal["owlqn"] = "owlqn"
    l1: float = Field(gt=0.0)
    history_length: int = Field(default=10, ge=1, le=100)
    curvature_epsilon: float = Field(default=2.2e-16, ge=0.0)
    line_search: ArmijoConfig = ArmijoConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConjugateConfig(BatchConfig):
    """Nonlinear conjugate gradients, Polak-Ribiere+ (Nocedal & Wright 2006, 5.2)."""

    name: Literal["conjugate"] = "conjugate"
    # Backtracking alone would give directions that climb (lemma 5.6).
    line_search: WolfeConfig = WolfeConfig(c2=0.1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DescentConfig(BatchConfig):
    """Gradient descent with momentum as torch.optim.SGD writes it, on the full batch."""

    name: Literal["descent"] = "descent"
    learning_rate: float = Field(default=0.1, gt=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultibatchConfig(BatchConfig):
    """L-BFGS on batches that overlap and grow (Berahas, Nocedal & Takac 2016)."""

    name: Literal["multibatch"] = "multibatch"
    num_samples: int | None = Field(default=None, ge=1)  # in the problem; None: asked of it
    batch_size: int = Field(ge=2)  # samples of the first batch
    growth: float = Field(default=1.0, ge=1.0)  # next batch's size / this one's
    overlap: float = Field(default=0.2, gt=0.0, le=0.5)  # part of a batch that the next one shares
    history_length: int = Field(default=10, ge=1, le=100)
    curvature_epsilon: float = Field(default=1e-8, ge=0.0)  # keep a pair if s.y > this * y.y
    line_search: ArmijoConfig = ArmijoConfig()


OptimiserConfig = Annotated[
    LbfgsConfig | OwlqnConfig | ConjugateConfig | DescentConfig | MultibatchConfig,
    Field(discriminator="name"),
]
