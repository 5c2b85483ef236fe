"""Configuration of distributed training. Light: imports neither torch nor distributed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: auto: a GPU where torch sees one, else the processor.
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SgdConfig:
    """w -= learning_rate * (g + weight_decay * w)."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MomentumConfig:
    """SGD with momentum as torch.optim.SGD writes it (Simonyan & Zisserman 2015, 3.1)."""

    name: Literal["momentum"] = "momentum"
    learning_rate: float = Field(default=0.01, gt=0.0)
    momentum: float = Field(default=0.9, gt=0.0, lt=1.0)
    nesterov: bool = False  # the gradient where the velocity leads, not where we are
    weight_decay: float = Field(default=0.0, ge=0.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdagradConfig:
    """The paper's rule on the shard (Dean et al. 2012, 4.1): gamma / sqrt(sum of squares)."""

    name: Literal["adagrad"] = "adagrad"
    gamma: float = Field(default=0.01, gt=0.0)
    epsilon: float = Field(default=0.0, ge=0.0)  # the paper has none; 0/0 counts as 0
    weight_decay: float = Field(default=0.0, ge=0.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RmspropConfig:
    """The rate is divided by the root of a moving mean of squared gradients."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(default=0.001, gt=0.0)
    smoothing: float = Field(default=0.99, ge=0.0, lt=1.0)  # of the mean; torch calls it alpha
    epsilon: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdamWConfig:
    """Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(default=0.001, gt=0.0)
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    epsilon: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.01, ge=0.0)


RuleConfig = Annotated[
    SgdConfig | MomentumConfig | AdagradConfig | RmspropConfig | AdamWConfig,
    Field(discriminator="name"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScheduleConfig:
    """Factors on the rule's rate, by the fraction of the run that is leased; they multiply.

    The rate is divided by drop_by[i] once the fraction drop_at[i] is leased.
    """

    drop_at: tuple[float, ...] = ()
    drop_by: tuple[float, ...] = ()
    warm_up: float = Field(default=0.0, ge=0.0, lt=1.0)  # rises from a tenth until this fraction
    anneal: Literal["none", "linear", "cosine"] = "none"  # falls to 0 at the end of the run
    #: Fractions of the run between which this schedule's samples lie: one phase of several.
    part: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.drop_at) != len(self.drop_by):
            raise ValueError(
                f"drop_at has {len(self.drop_at)} entries, drop_by {len(self.drop_by)}: "
                "want as many of each"
            )
        if list(self.drop_at) != sorted(self.drop_at) or not all(0 < x < 1 for x in self.drop_at):
            raise ValueError(f"drop_at={self.drop_at}: want rising fractions between 0 and 1")
        if not all(x > 0 for x in self.drop_by):
            raise ValueError(f"drop_by={self.drop_by}: want divisors above 0")
        if not 0.0 <= self.part[0] < self.part[1] <= 1.0:
            raise ValueError(f"part={self.part}: want two rising fractions from 0 to 1")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClipConfig:
    """Bounds on the gradient of each mini-batch; None is no bound."""

    max_value: float | None = Field(default=None, gt=0.0)  # of each element
    max_norm: float | None = Field(default=None, gt=0.0)  # of the whole gradient, Euclidean

    def __post_init__(self) -> None:
        if self.max_value is not None and self.max_norm is not None:
            raise ValueError(
                f"max_value={self.max_value} and max_norm={self.max_norm}: "
                "clip by value or by norm, not both"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """What every algorithm needs to know of a run."""

    minibatch_size: int = Field(default=256, ge=1)
    num_epochs: int = Field(default=74, ge=1)
    rule: RuleConfig = Field(default_factory=MomentumConfig)
    schedule: ScheduleConfig = ScheduleConfig()
    clip: ClipConfig = ClipConfig()
    start_from: Path | None = None  # a checkpoint or kept warm start: where parameters begin
    seed: int = Field(default=0, ge=0)
    prefetch: int = Field(default=4, ge=1)  # mini-batches read ahead by each replica
    validate_every_epochs: float = Field(default=1.0, gt=0.0)
    checkpoint_every_s: float = Field(default=300.0, gt=0.0)
    keep_checkpoints: int = Field(default=2, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WarmStartConfig:
    """One replica alone until the first of these bounds; without any there is no warm start."""

    steps: int = Field(default=0, ge=0)  # mini-batches; 0: no bound
    seconds: float = Field(default=0.0, ge=0.0)  # of training; 0: no bound
    metric: str | None = None  # of the validation, for example top1_error; None: no bound
    at_most: float | None = None  # what the metric has to reach

    def __post_init__(self) -> None:
        if (self.metric is None) != (self.at_most is None):
            raise ValueError(
                f"metric={self.metric} and at_most={self.at_most}: give both, or neither"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DownpourConfig(TrainingConfig):
    """Downpour SGD. Symbols are those of Dean et al. 2012, Algorithm 1.1."""

    name: Literal["downpour"] = "downpour"
    n_fetch: int = Field(default=1, ge=1)  # mini-batches between fetches
    n_push: int = Field(default=1, ge=1)  # mini-batches between pushes
    alpha: float = Field(default=0.0, ge=0.0)  # the replica's own step between fetches
    overlap_fetch: bool = False  # compute does not wait for the fetch: one update staler
    warm_start: WarmStartConfig = WarmStartConfig()
    max_staleness: int | None = Field(default=None, ge=0)  # pushes staler than this are refused
    max_push_norm: float | None = Field(default=None, gt=0.0)  # at a shard; larger ones are refused
    max_bad_pushes: int = Field(
        default=10, ge=1
    )  # no number or too large, in a row: replica is left out
    record: bool = False  # write down what it takes to repeat the run bit for bit, engine.replay
    # What an acknowledged push survives: the death of every process, or a loss of power as well.
    durability: Literal["process", "power"] = "process"
    log_bytes: int = Field(default=4_000_000_000, ge=1)  # of pushes, on disk, each shard; power
    max_checkpoint_share: float = Field(default=0.035, gt=0.0, le=1.0)  # of the training's time


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SingleConfig(TrainingConfig):
    """The baseline: one plain torch loop in one process."""

    name: Literal["single"] = "single"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SynchronousConfig(TrainingConfig):
    """The other baseline: torch's DistributedDataParallel, a process for each replica.

    `minibatch_size` is that of each process: an update is made of num_replicas mini-batches.
    """

    name: Literal["synchronous"] = "synchronous"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TlsConfig:
    """PEM files by which the processes of a cluster know each other; the same on every host."""

    ca_file: Path  # of the cluster's own CA, which signs nobody else
    certificate_file: Path
    key_file: Path  # without a password, readable by its owner alone


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """The processes of one run: each replica and each shard is a Dask worker of its own."""

    num_replicas: int = Field(default=2, ge=1)
    num_shards: int = Field(default=2, ge=1)
    allow_resharding: bool = False  # go on from a checkpoint of another num_shards, cut anew
    device: Device = "auto"  # of gradients and evaluation; shards are on the processor
    threads_per_replica: int | None = Field(default=None, ge=1)  # None: cores / replicas
    host: str = "127.0.0.1"
    tls: TlsConfig | None = None  # needed off loopback; for Dask's connections and our own
    dashboard_port: int = Field(default=0, ge=0, le=65535)  # 0: any free port
    start_timeout_s: float = Field(default=60.0, gt=0.0)
    heartbeat_interval_s: float = Field(default=1.0, gt=0.0)
    heartbeat_timeout_s: float = Field(default=8.0, gt=0.0)
    max_restarts: int = Field(default=20, ge=0)  # of one role before the run gives up

    def __post_init__(self) -> None:
        if self.heartbeat_timeout_s < 3 * self.heartbeat_interval_s:
            raise ValueError(
                f"heartbeat_timeout_s={self.heartbeat_timeout_s} is below three times "
                f"heartbeat_interval_s={self.heartbeat_interval_s}"
            )
        if self.tls is None and self.host not in LOOPBACK:
            raise ValueError(
                f"host={self.host}: only loopback addresses are served without TLS; "
                "choose cluster=tls and name its three files"
            )
