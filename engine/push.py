"""What a replica sends to a shard, what the shard answers, and why it may refuse."""

from typing import NamedTuple

from engine.ledger import Progress


class Push(NamedTuple):
    """Identity and origin of one accrued gradient. (replica, incarnation, sequence) is unique."""

    replica: int
    incarnation: int
    sequence: int  # counts from 1 within one incarnation
    fetched_version: int  # of this shard, when the replica last fetched
    progress: Progress  # the samples that this push brings to their end
    scale: float = 1.0  # of the learning rate


class Applied(NamedTuple):
    """The shard's answer: the push is in its state, now or already before (`duplicate`)."""

    version: int
    staleness: int
    duplicate: bool
    durable: bool = True  # as the run's `durability` has it; else another answer will say so


class PushRefusedError(Exception):
    """The shard is unchanged; sending the same push again would be refused again."""


class StaleIncarnationError(PushRefusedError):
    """The replica's incarnation was replaced: its work has been given to somebody else."""


class StalePushError(PushRefusedError):
    """Older than the shard can tell from a duplicate, or staler than the bound."""


class NonFinitePushError(PushRefusedError):
    """The gradient holds NaN or infinity."""


class HugePushError(PushRefusedError):
    """The gradient is finite, but larger than `max_push_norm` allows."""


class MisshapenPushError(PushRefusedError):
    """The gradient has another shape or type than the shard's slice."""


class FencedShardError(Exception):
    """A successor owns this shard's memory: this process must neither write nor acknowledge."""
