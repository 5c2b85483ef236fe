"""Who reads which mini-batch at which step: everybody works it out alike, so nobody is asked. Pure.

The ranks take leases of the same ledger in turn, each works through its own, and a step is one
mini-batch of every rank. Where one has none left at the end of the run, the others go on.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.config import SynchronousConfig
from engine.ledger import Lease, Ledger, Progress, Range
from engine.schedule import scale_at

_LEASE_MINIBATCHES = 8


@dataclass(frozen=True)
class Share:
    """One rank's mini-batch: samples [start, stop) of the lease's unit."""

    lease: Lease
    start: int
    stop: int

    @property
    def num_samples(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Step:
    """One update: what each rank reads for it, and the factor on the rate."""

    shares: tuple[Share | None, ...]
    scale: float

    @property
    def num_samples(self) -> int:
        return sum(share.num_samples for share in self.shares if share)


class Plan:
    """The steps of a run from where `counted` left it; may be drawn and counted by two threads."""

    def __init__(
        self,
        unit_sizes: Sequence[int],
        config: SynchronousConfig,
        num_ranks: int,
        counted: Sequence[Range],
    ) -> None:
        self._config = config
        self._num_ranks = num_ranks
        self._lock = threading.Lock()  # a loader draws ahead of what has been counted
        self._ledger = Ledger(
            unit_sizes,
            config.num_epochs,
            lease_size=_LEASE_MINIBATCHES * config.minibatch_size,
            seed=config.seed,
            counted=counted,
        )

    @property
    def num_total(self) -> int:
        """Samples of the whole run."""
        return self._ledger.num_total

    @property
    def num_counted(self) -> int:
        """Samples whose steps are done."""
        return self._ledger.num_counted

    def steps(self) -> Iterator[Step]:
        """Every step that is still to be done, in order."""
        shares: list[Share | None] = [None] * self._num_ranks
        scale = 1.0
        while True:
            with self._lock:
                fraction = self._ledger.num_leased / self._ledger.num_total
                shares = [self._next(rank, share) for rank, share in enumerate(shares)]
                if any(share and share.start == share.lease.start for share in shares):
                    scale = scale_at(self._config.schedule, fraction)
            if not any(shares):
                return
            yield Step(tuple(shares), scale)

    def count(self, step: Step) -> None:
        """`step` is done."""
        with self._lock:
            for rank, share in enumerate(step.shares):
                if share:
                    self._ledger.count((rank, 1), Progress(share.lease.id, share.stop))

    def counted(self) -> tuple[Range, ...]:
        """The samples of all steps that are done: what a checkpoint stores."""
        with self._lock:
            return self._ledger.counted()

    def _next(self, rank: int, share: Share | None) -> Share | None:
        if share is None or _at_end(share):
            lease = self._ledger.lease((rank, 1))
            if lease is None:
                return None
            start = lease.start
        else:
            lease, start = share.lease, share.stop
        return Share(lease, start, min(start + self._config.minibatch_size, lease.stop))


def _at_end(share: Share | None) -> bool:
    return share is None or share.stop == share.lease.stop
