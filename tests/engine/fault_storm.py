"""A whole run among random faults, judged by an oracle that knows only what was delivered.

python -m tests.engine.fault_storm SEED [partitioned]     # tells that run, event by event
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

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
    """Sample j's gradient is -1 at element j of its shards, so parameters count samples."""

    unit_sizes = UNIT_SIZES

    def __init__(self, num_shards: int, own: Sequence[int] | None = None) -> None:
        """Gradients are 0 but for the shards in `own`; None: all."""
        self.layout = Layout(tuple(map(str, range(num_shards))), ((ALIGNMENT,),) * num_shards)
        self._own = range(num_shards) if own is None else own

    def initial(self) -> Tensor:
        return torch.zeros(self.layout.size)

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        first = sum(UNIT_SIZES[: lease.unit])
        for start in range(lease.start, lease.stop, size):
            stop = min(start + size, lease.stop)
            yield Minibatch((first + start, first + stop), stop - start)

    def gradient_(self, parameters: Tensor, payload: tuple[int, int], grad: Tensor) -> float:
        grad.zero_()
        grad.view(-1, ALIGNMENT)[self._own, slice(*payload)] = -1.0
        return 0.0

    def validate(self, parameters: Tensor) -> dict[str, float]:
        return {}


class Partitions(Counting):
    """Each replica works on some of the shards; a shard may have none."""

    def __init__(self, num_shards: int, shards_of: Sequence[Sequence[int]]) -> None:
        super().__init__(num_shards)
        self._shards_of = shards_of

    def tensors_of(self, replica: int) -> list[str]:
        return [self.layout.names[shard] for shard in self._shards_of[replica]]

    def of_replica(self, replica: int) -> Counting:
        return Counting(len(self.layout.names), self._shards_of[replica])


class Oracle:
    """What each shard must hold: the sum of the pushes delivered to it, each once."""

    def __init__(self, num_shards: int, shards_of: Sequence[Sequence[int]], tell: bool) -> None:
        self.shards_of = shards_of
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
        assert shard in self.shards_of[push.replica]
        self.seen[shard].add(push[:3])
        self.counts[shard] -= grad

    def acknowledged(self, push: Push) -> None:
        self._print("acknowledged", push[:3])
        self.acked.add(push[:3])

    def fenced(self, holder: Holder) -> None:
        self._print("killed replica", holder)
        self.dead.add(holder)


def run(
    seed: int, *, partitioned: bool = False, tell: bool = False
) -> tuple[Counter[str], Oracle, InProcessResult]:
    """The run of `seed`, checked; returns the faults that fired.

    Args:
        partitioned: each replica talks to some of the shards only.
    """
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
    num_replicas = rng.randint(1, 4)
    shards_of: list[Sequence[int]] = [range(num_shards)] * num_replicas
    if partitioned:
        shards_of = [drawn_shards(rng, num_shards) for _ in range(num_replicas)]
    oracle = Oracle(num_shards, shards_of, tell)
    result = train_in_process(
        Partitions(num_shards, shards_of) if partitioned else Counting(num_shards),
        config,
        num_replicas=num_replicas,
        num_shards=num_shards,
        seed=seed,
        faults=faults,
        watcher=oracle,
    )
    check(result, oracle, num_epochs)
    assert result.restarts == faults.fired["kill_shard"]
    return faults.fired, oracle, result


def drawn_shards(rng: random.Random, num_shards: int) -> list[int]:
    """One or more of the shards."""
    return sorted(rng.sample(range(num_shards), rng.randint(1, num_shards)))


def check(result: InProcessResult, oracle: Oracle, num_epochs: int) -> None:
    """No acknowledged update is lost, none is applied twice, no sample counts twice."""
    held = result.parameters.view(oracle.counts.shape)
    assert torch.equal(held, oracle.counts)
    assert result.versions == tuple(len(seen) for seen in oracle.seen)
    for shard, seen in enumerate(oracle.seen):
        assert {push for push in oracle.acked if shard in oracle.shards_of[push[0]]} <= seen
    assert result.num_counted == num_epochs * NUM_SAMPLES
    # A push whose sender died may have reached some shards only: its samples are not read again.
    assert oracle.reached.eq(num_epochs).all()


if __name__ == "__main__":
    fired, _, result = run(int(sys.argv[1]), partitioned="partitioned" in sys.argv, tell=True)
    print(f"faults {dict(fired)}, versions {result.versions}, counts {result.parameters.tolist()}")
