"""A whole run among random faults, judged by an oracle that knows only what was delivered.

python -m tests.engine.fault_storm SEED     # tells that run, event by event
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from engine.config import DownpourConfig, SgdConfig
from engine.faults import KINDS, FaultPlan
from engine.inprocess import InProcessResult, train_in_process
from engine.layout import ALIGNMENT, Layout
from engine.ledger import Holder, Lease
from engine.problem import Minibatch
from engine.push import Push

UNIT_SIZES = (5, 1, 10)
NUM_SAMPLES = sum(UNIT_SIZES)
assert NUM_SAMPLES == ALIGNMENT  # so that each shard has an element for each sample


class Counting:
    """Sample j's gradient is -1 at element j of every shard, so parameters count samples."""

    unit_sizes = UNIT_SIZES

    def __init__(self, num_shards: int) -> None:
        self.layout = Layout(("counts",), ((num_shards * ALIGNMENT,),))

    def initial(self) -> Tensor:
        return torch.zeros(self.layout.size)

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        first = sum(UNIT_SIZES[: lease.unit])
        for start in range(lease.start, lease.stop, size):
            stop = min(start + size, lease.stop)
            yield Minibatch((first + start, first + stop), stop - start)

    def gradient_(self, parameters: Tensor, payload: tuple[int, int], grad: Tensor) -> float:
        grad.zero_()
        grad.view(-1, ALIGNMENT)[:, slice(*payload)] = -1.0
        return 0.0

    def validate(self, parameters: Tensor) -> dict[str, float]:
        return {}


class Oracle:
    """What each shard must hold: the sum of the pushes delivered to it, each once."""

    def __init__(self, num_shards: int, tell: bool) -> None:
        self.counts = torch.zeros(num_shards, ALIGNMENT)
        self.reached = torch.zeros(ALIGNMENT)  # of pushes that reached any shard
        self.seen: list[set[tuple[int, ...]]] = [set() for _ in range(num_shards)]
        self.acked: set[tuple[int, ...]] = set()
        self.dead: set[Holder] = set()
        self._print = print if tell else lambda *_: None

    def delivered(self, shard: int, push: Push, grad: Tensor) -> None:
        self._print("delivered to shard", shard, push[:3], push.progress)
        if push[:3] in self.seen[shard] or push[:2] in self.dead:
            return
        if not any(push[:3] in seen for seen in self.seen):
            self.reached -= grad
        self.seen[shard].add(push[:3])
        self.counts[shard] -= grad

    def acknowledged(self, push: Push) -> None:
        self._print("acknowledged", push[:3])
        self.acked.add(push[:3])

    def fenced(self, holder: Holder) -> None:
        self._print("killed replica", holder)
        self.dead.add(holder)


def run(seed: int, tell: bool = False) -> tuple[Counter[str], Oracle, InProcessResult]:
    """The run of `seed`, checked; returns the faults that fired."""
    rng = random.Random(seed)
    num_shards, num_epochs = rng.randint(1, 4), rng.randint(1, 3)
    config = DownpourConfig(
        minibatch_size=rng.randint(1, 4),
        num_epochs=num_epochs,
        n_push=rng.choice((1, 1, 2, 3)),
        n_fetch=rng.choice((1, 2)),
        rule=SgdConfig(learning_rate=1.0),
    )
    faults = FaultPlan({kind: rng.uniform(0.0, 0.15) for kind in KINDS}, seed)
    oracle = Oracle(num_shards, tell)
    result = train_in_process(
        Counting(num_shards),
        config,
        num_replicas=rng.randint(1, 4),
        num_shards=num_shards,
        seed=seed,
        faults=faults,
        watcher=oracle,
    )
    check(result, oracle, num_epochs)
    assert result.restarts == faults.fired["kill_shard"]
    return faults.fired, oracle, result


def check(result: InProcessResult, oracle: Oracle, num_epochs: int) -> None:
    """No acknowledged update is lost, none is applied twice, no sample counts twice."""
    held = result.parameters.view(oracle.counts.shape)
    assert torch.equal(held, oracle.counts)
    assert result.versions == tuple(len(seen) for seen in oracle.seen)
    assert all(oracle.acked <= seen for seen in oracle.seen)
    assert result.num_counted == num_epochs * NUM_SAMPLES
    # A push whose sender died may have reached some shards only: its samples are not read again.
    assert oracle.reached.eq(num_epochs).all()


if __name__ == "__main__":
    fired, _, result = run(int(sys.argv[1]), tell=True)
    print(f"faults {dict(fired)}, versions {result.versions}, counts {result.parameters.tolist()}")
