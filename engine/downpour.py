"""What a Downpour replica does, step by step (Dean et al. 2012, Algorithm 1.1). Pure decisions.

`downpour` yields instructions; whoever drives it carries them out: the threads of
`engine.replica` in real runs, `engine.inprocess` in one thread in an order drawn from a seed.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from engine.config import DownpourConfig
from engine.ledger import Progress


@dataclass(frozen=True, slots=True)
class LeasedMinibatch:
    """A mini-batch, its place in the ledger, its lease's scale of the rate, its draws' seed."""

    payload: Any
    num_samples: int
    progress: Progress
    scale: float
    seed: int


@dataclass(frozen=True, slots=True)
class Idle:
    """All samples are lent out; some may come back, so this is not the end yet."""


@dataclass(frozen=True, slots=True)
class Take:
    """Answer with the next LeasedMinibatch, Idle, or None when every sample counts."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch the newest parameters; the driver decides whether the next Compute waits for it."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Accrue the gradient of `minibatch`; with `first`, the accrued gradient starts anew."""

    minibatch: LeasedMinibatch
    first: bool


@dataclass(frozen=True, slots=True)
class StartPush:
    """Send the accrued gradient; it brings the replica's samples up to `progress`.

    With `then_fetch`, the newest parameters come back with the answer: the fetch of the next step
    travels right behind the push, which saves a round trip and still sees what was pushed.
    """

    progress: Progress
    scale: float
    then_fetch: bool = False


Instruction = Take | Fetch | Compute | StartPush
Answer = LeasedMinibatch | Idle | None


def downpour(config: DownpourConfig) -> Generator[Instruction, Answer, None]:
    """Yield one replica's instructions; send the mini-batch in answer to `Take`."""
    step = num_accrued = 0
    last: LeasedMinibatch | None = None
    fetched = False
    while (minibatch := (yield Take())) is not None:
        if isinstance(minibatch, Idle):
            # The printed loop never ends; ours must not sit on the last gradients of a run.
            if num_accrued and last:
                yield StartPush(last.progress, last.scale)
                num_accrued = 0
            fetched = False  # while we wait, others change the parameters
            continue
        if step % config.n_fetch == 0 and not fetched:
            yield Fetch()
        fetched = False
        yield Compute(minibatch, first=num_accrued == 0)
        num_accrued += 1
        if step % config.n_push == 0:  # step 0 pushes too, as Algorithm 1.1 is printed
            fetched = (step + 1) % config.n_fetch == 0 and not config.overlap_fetch
            yield StartPush(minibatch.progress, minibatch.scale, then_fetch=fetched)
            num_accrued = 0
        step, last = step + 1, minibatch
