"""The replica's three threads: the same bits as one thread, and nothing lost between them."""

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
import torch
from torch import Tensor

from engine.config import DownpourConfig, SgdConfig
from engine.downpour import Answer, Idle
from engine.inprocess import train_in_process
from engine.ledger import Ledger, Progress
from engine.link import Refused
from engine.loader import LeaseReply, leased_minibatches
from engine.push import Applied, Push
from engine.replica import FencedReplicaError, QuarantinedReplicaError, Replica, Tally
from engine.rules import make_rule
from engine.shard import ParameterShard
from engine.state import ShardState
from tests.engine.problems import NUM_SAMPLES, RULES, UNIT_SIZES, classifier, rule_name

NUM_MINIBATCHES = sum(-(-size // 8) for size in UNIT_SIZES)


class LocalServer:
    """One shard without a socket; pushes may be slow, or refused."""

    def __init__(self, config: DownpourConfig, push_takes_s: float = 0.0) -> None:
        rule, initial = make_rule(config.rule), classifier().initial()
        state = ShardState.in_memory(initial.numel(), len(rule.slots), initial.dtype)
        state.fill(initial, [torch.zeros_like(initial) for _ in rule.slots], version=0)
        self.shard = ParameterShard(state, rule, epoch=1)
        self.gradients = [torch.zeros_like(initial) for _ in range(2)]
        self.parameters = [torch.zeros_like(initial) for _ in range(2)]
        self.push_takes_s = push_takes_s
        self.refusal: Refused | None = None
        self.pushed = torch.zeros(initial.numel(), dtype=torch.float64)
        self.sequences: list[int] = []
        self._lock = threading.Lock()

    def fetch(self, buffer: int) -> list[int]:
        with self._lock:
            return [self.shard.fetch(self.parameters[buffer])]

    def push(self, slot: int, pushes: Sequence[Push]) -> list[Applied | Refused]:
        time.sleep(self.push_takes_s)
        self.sequences.append(pushes[0].sequence)
        if self.refusal:
            return [self.refusal]
        with self._lock:
            self.pushed += self.gradients[slot]
            return [self.shard.push(pushes[0], self.gradients[slot])]

    def exchange(
        self, slot: int, pushes: Sequence[Push], buffer: int
    ) -> tuple[list[Applied | Refused], list[int]]:
        answers = self.push(slot, pushes)
        return answers, self.fetch(buffer)


class OwingServer(LocalServer):
    """What is exchanged is durable when that is asked for, if its gradient is still there."""

    num_settled = 0

    def exchange(
        self, slot: int, pushes: Sequence[Push], buffer: int
    ) -> tuple[list[Applied | Refused], list[int]]:
        answers, versions = super().exchange(slot, pushes, buffer)
        self.owed = slot, self.gradients[slot].clone()
        return [answer._replace(durable=False) for answer in answers], versions

    def settle(self, answers: Sequence[Applied | Refused]) -> list[Applied | Refused]:
        slot, grad = self.owed
        assert torch.equal(self.gradients[slot], grad)
        self.num_settled += 1
        return [answer._replace(durable=True) for answer in answers]


class Run:
    """A replica at work on every sample of an epoch, and what it reported."""

    def __init__(self, config: DownpourConfig, server: LocalServer, problem=None) -> None:
        self.config, self.server = config, server
        self.problem = problem or classifier()
        size = config.minibatch_size
        self.ledger = Ledger(self.problem.unit_sizes, 1, lease_size=8 * size, seed=config.seed)
        self.tallies: list[Tally] = []
        self.acknowledged: list[Progress] = []
        self.replica = Replica(
            (0, 1),
            self.problem,
            config,
            server,
            (server.gradients, server.parameters),
            (0,),
            self.report,
        )

    def work(self) -> None:
        self.replica.run(self.minibatches())

    def minibatches(self) -> Iterator[Answer]:
        size = self.config.minibatch_size
        return leased_minibatches(self.ask, self.problem, size, 0, poll_s=0.0)

    def ask(self) -> LeaseReply:
        return LeaseReply(self.ledger.lease((0, 1)), 1.0, self.ledger.complete)

    def report(self, replica: Replica) -> None:
        tally, acknowledged = replica.take()
        self.tallies.append(tally)
        self.acknowledged.append(acknowledged)
        self.ledger.count((0, 1), acknowledged)

    def total(self, field: str) -> float:
        return sum(getattr(tally, field) for tally in self.tallies)


def config(**changed) -> DownpourConfig:
    return DownpourConfig(**{"minibatch_size": 8, "num_epochs": 1, **changed})


def in_one_thread(config: DownpourConfig) -> Tensor:
    return train_in_process(classifier(), config, num_replicas=1, num_shards=1).parameters


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize(
    "intervals",
    [
        {},
        {"n_push": 3},
        {"n_fetch": 2, "n_push": 3},
        {"n_fetch": 4, "n_push": 1, "alpha": 0.05},
    ],
)
def test_three_threads_compute_the_bits_of_one(rule, intervals):
    settings = config(rule=rule, **intervals)
    run = Run(settings, LocalServer(settings, push_takes_s=0.001))
    run.work()
    assert torch.equal(run.server.shard.copy()[0], in_one_thread(settings))
    assert run.ledger.complete


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("n_push", [1, 4])
def test_slow_pushes_lose_no_gradient(overlap, n_push):
    settings = config(n_push=n_push, n_fetch=100, overlap_fetch=overlap, rule=SgdConfig())
    computed = torch.zeros(classifier().layout.size, dtype=torch.float64)
    problem = classifier()
    plain = problem.gradient_

    def gradient_(parameters, payload, grad) -> float:
        loss = plain(parameters, payload, grad)
        computed.add_(grad)
        return loss

    problem.gradient_ = gradient_
    run = Run(settings, LocalServer(settings, push_takes_s=0.01), problem)
    run.work()
    torch.testing.assert_close(run.server.pushed, computed, rtol=1e-5, atol=1e-5)
    assert run.server.sequences == list(range(1, len(run.server.sequences) + 1))
    assert run.total("steps") == NUM_MINIBATCHES
    assert run.total("samples") == NUM_SAMPLES


def test_computing_goes_on_while_a_push_is_on_its_way():
    settings = config(n_fetch=100)
    run = Run(settings, LocalServer(settings))
    free = threading.Event()
    plain, begun = run.server.push, []

    def push(slot, pushes):
        begun.append(run.total("steps"))
        free.wait(5.0)
        return plain(slot, pushes)

    run.server.push = push
    worker = threading.Thread(target=run.work)
    worker.start()
    deadline = time.monotonic() + 5
    while run.total("steps") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert begun == [1]
    assert run.total("steps") == 2  # and the first push has not come back
    free.set()
    worker.join()
    assert run.server.shard.version == NUM_MINIBATCHES


def test_without_overlap_a_lone_replica_is_never_stale():
    settings = config()
    run = Run(settings, LocalServer(settings, push_takes_s=0.002))
    run.work()
    assert sum((tally.staleness for tally in run.tallies), Tally().staleness) == {
        (0, 0): NUM_MINIBATCHES
    }


def test_with_overlap_a_lone_replica_is_stale_by_what_was_on_its_way():
    settings = config(overlap_fetch=True)
    run = Run(settings, LocalServer(settings, push_takes_s=0.002))
    run.work()
    staleness = sum((tally.staleness for tally in run.tallies), Tally().staleness)
    assert sum(staleness.values()) == NUM_MINIBATCHES
    assert staleness[0, 0] >= 1  # the very first fetch is waited for
    assert staleness[0, 0] < NUM_MINIBATCHES
    assert max(staleness) <= (0, 3)  # one push being computed, two slots on their way
    assert run.ledger.complete


def test_samples_are_reported_only_once_their_push_was_answered():
    settings = config()
    run = Run(settings, LocalServer(settings, push_takes_s=0.002))
    run.work()
    # Reported after each step, before the push of the same step has been sent.
    assert run.acknowledged[0] == Progress(0, 0)
    assert run.acknowledged[1] == Progress(1, 8)
    assert run.acknowledged == sorted(run.acknowledged)


def test_the_last_push_is_answered_before_the_work_ends():
    settings = config()
    run = Run(settings, LocalServer(settings, push_takes_s=0.02))
    first = next(run.minibatches())
    run.replica.run(iter([first]))
    assert run.acknowledged[-1] == Progress(1, 8)


@pytest.mark.parametrize(
    ("n_fetch", "exchanges"), [(1, NUM_MINIBATCHES), (2, NUM_MINIBATCHES // 2)]
)
def test_a_gradient_stays_until_it_is_durable_and_counts_then(n_fetch, exchanges):
    settings = config(n_fetch=n_fetch)
    run = Run(settings, OwingServer(settings))
    run.replica.run(islice(run.minibatches(), NUM_MINIBATCHES))
    assert run.server.num_settled == exchanges
    assert run.acknowledged[0] == Progress(0, 0)
    assert run.acknowledged == sorted(run.acknowledged)
    assert run.ledger.complete


def test_an_idle_replica_has_its_last_push_acknowledged():
    settings = config()
    run = Run(settings, OwingServer(settings))
    first = next(run.minibatches())
    run.replica.run(iter([first, Idle()]))
    assert run.acknowledged == [Progress(0, 0), Progress(1, 8), Progress(1, 8)]


def test_the_loss_is_the_mean_over_samples():
    settings = config(rule=SgdConfig(learning_rate=1e-30))  # the parameters do not move
    run = Run(settings, LocalServer(settings))
    run.work()
    problem = classifier()
    grad = torch.empty(problem.layout.size)
    losses = []
    for batch in Run(settings, LocalServer(settings)).minibatches():
        loss = problem.gradient_(problem.initial(), batch.payload, grad)
        losses.append(loss * batch.num_samples)
        if len(losses) == NUM_MINIBATCHES:
            break
    assert run.total("loss_sum") == pytest.approx(sum(losses))


def test_a_fenced_replica_stops():
    settings = config()
    run = Run(settings, LocalServer(settings))
    run.server.refusal = Refused("StaleIncarnationError", "replica 0 incarnation 1 was replaced")
    with pytest.raises(FencedReplicaError, match="incarnation 1 was replaced"):
        run.work()
    assert len(run.server.sequences) <= 2
    assert run.ledger.num_counted == 0


def test_other_refusals_are_counted_by_their_message_and_training_goes_on():
    settings = config(max_bad_pushes=1000)
    run = Run(settings, LocalServer(settings))
    run.server.refusal = Refused("NonFinitePushError", "3 of 83 are NaN")
    run.work()
    refused = sum((tally.refused for tally in run.tallies), Tally().refused)
    assert refused == {"3 of 83 are NaN": NUM_MINIBATCHES}
    assert run.ledger.complete


@pytest.mark.parametrize("error", ["NonFinitePushError", "HugePushError"])
def test_a_replica_whose_gradients_are_never_of_use_gives_up(error):
    settings = config(max_bad_pushes=4)
    run = Run(settings, LocalServer(settings))
    run.server.refusal = Refused(error, "3 of 83 are NaN")
    with pytest.raises(QuarantinedReplicaError, match=r"4 pushes in a row .*: 3 of 83 are NaN"):
        run.work()


def test_an_error_of_the_link_ends_the_replica():
    settings = config()
    run = Run(settings, LocalServer(settings))

    def push(slot, pushes):
        raise ValueError("shard 0 refused: another layout")

    run.server.push = push
    with pytest.raises(ValueError, match="another layout"):
        run.work()


def test_waiting_is_measured():
    settings = config()
    run = Run(settings, LocalServer(settings, push_takes_s=0.01))
    run.work()
    # All but the last push are waited for by the next fetch.
    assert run.total("waiting_s") > 0.01 * (NUM_MINIBATCHES - 1)
