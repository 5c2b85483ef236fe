"""Synchronous training on real processes: its arithmetic, and what a lost rank costs."""

import functools
import os
import signal
from collections.abc import Iterator

import pytest
import torch
from distributed import Client
from torch import Tensor

from engine import memory_folder
from engine.clipping import clip_
from engine.config import (
    AdamWConfig,
    ClusterConfig,
    MomentumConfig,
    SingleConfig,
    SynchronousConfig,
)
from engine.instructions import RunFailedError
from engine.ledger import Lease
from engine.problem import Problem
from engine.single import train_single
from engine.synchronous.plan import Plan
from engine.synchronous.train import train_synchronous
from engine.torch_optimiser import torch_optimiser
from tasks.cluster import open_cluster
from tests.engine.fuses import broken, hopeless, slow
from tests.engine.problems import NUM_SAMPLES, classifier, forgetful
from tests.engine.rows import Listener, Meddler, Row, StoppedByTestError, When, in_file, stop
from tests.engine.written import by_hand
from tests.kills import real_kill

pytestmark = pytest.mark.dask
RULE = MomentumConfig(learning_rate=0.05, weight_decay=0.01)
SLOW = functools.partial(slow, pause_s=0.005)


def cluster(num_ranks: int) -> ClusterConfig:
    return ClusterConfig(
        num_replicas=num_ranks, heartbeat_interval_s=0.2, heartbeat_timeout_s=2.0, max_restarts=1
    )


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(cluster(3), with_shards=False) as client:
        yield client


def config(**changed) -> SynchronousConfig:
    fields = {"minibatch_size": 8, "num_epochs": 3, "rule": RULE}
    return SynchronousConfig(**fields | changed)


def in_this_process(settings: SynchronousConfig, num_ranks: int) -> tuple[Tensor, int]:
    """The same steps one mini-batch after the other, and how many there were."""
    problem: Problem = classifier()
    parameters, grad = problem.initial(), torch.empty(problem.layout.size)
    optimiser = torch_optimiser(settings.rule, [parameters])
    rate = optimiser.param_groups[0]["lr"]
    steps = list(Plan(problem.unit_sizes, settings, num_ranks, ()).steps())
    for step in steps:
        total = torch.zeros_like(parameters)
        for share in filter(None, step.shares):
            part = Lease(*share.lease)._replace(start=share.start, stop=share.stop)
            (minibatch,) = problem.minibatches(part, settings.minibatch_size)
            problem.gradient_(parameters, minibatch.payload, grad)
            total += grad * (minibatch.num_samples / step.num_samples)
        clip_(total, problem.layout, settings.clip)
        parameters.grad = total
        optimiser.param_groups[0]["lr"] = rate * step.scale
        optimiser.step()
    return parameters, len(steps)


@pytest.mark.parametrize("factory", [classifier, forgetful])
def test_one_rank_computes_the_bits_of_a_plain_loop(client, tmp_path, factory):
    result = train_synchronous(client, factory, config(), cluster(1), tmp_path / "a", {})
    plain = SingleConfig(minibatch_size=8, num_epochs=3, rule=RULE)
    assert torch.equal(
        result.parameters, train_single(factory, plain, tmp_path / "b", {}).parameters
    )


@pytest.mark.parametrize("factory", [classifier, by_hand])
@pytest.mark.parametrize(
    "changed",
    [
        {"clip": {"max_norm": 0.1}, "schedule": {"drop_at": (0.5,), "drop_by": (4.0,)}},
        {"rule": AdamWConfig(), "minibatch_size": 7},
    ],
)
def test_two_ranks_apply_the_mean_gradient_of_all_their_samples(client, tmp_path, factory, changed):
    settings, heard = config(**changed), Listener()
    result = train_synchronous(client, factory, settings, cluster(2), tmp_path, {}, heard)
    expected, num_steps = in_this_process(settings, 2)
    assert torch.equal(result.parameters, expected)
    assert (result.num_steps, result.num_samples) == (num_steps, 3 * NUM_SAMPLES)
    assert in_file(tmp_path) == heard
    assert len({row["pid"] for row in heard.of("rank_joined")} - {os.getpid()}) == 2
    assert [row["event"] for row in heard][-2:] == ["validation", "finished"]
    assert len(heard.of("validation")) == 3
    assert not list(memory_folder.root().glob(f"verydeep-{os.getpid()}-*"))


def test_ranks_without_a_minibatch_of_their_own_still_take_part(client, tmp_path):
    settings = config(minibatch_size=50, num_epochs=1)  # three mini-batches of 40, 30 and 50
    result = train_synchronous(client, classifier, settings, cluster(3), tmp_path / "a", {})
    assert result.num_steps == 1
    settings = config(minibatch_size=25, num_epochs=1)
    result = train_synchronous(client, classifier, settings, cluster(3), tmp_path / "b", {})
    expected, num_steps = in_this_process(settings, 3)
    torch.testing.assert_close(result.parameters, expected, rtol=1e-6, atol=1e-6)
    assert result.num_steps == num_steps == 2


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP])
def test_after_a_lost_rank_all_go_on_from_the_newest_checkpoint_to_the_same_bits(
    client, tmp_path, kind
):
    def strike(row: Row) -> None:
        victim = heard.of("rank_joined")[1]["pid"]
        if kind == signal.SIGKILL:
            real_kill(victim, "synchronous worker")
        else:
            os.kill(victim, kind)

    heard = Meddler(When("checkpoint", 2, strike))
    settings = config(num_epochs=10, checkpoint_every_s=0.1, validate_every_epochs=99.0)
    result = train_synchronous(client, SLOW, settings, cluster(2), tmp_path, {}, heard)
    assert torch.equal(result.parameters, in_this_process(settings, 2)[0])
    lost = heard.of("rank_lost")
    assert [row["replica"] for row in lost][:1] == [1]
    assert lost[0]["reason"].startswith("silent for") == (kind == signal.SIGSTOP)
    starts = heard.of("start")
    assert len(starts) == 1 + len(lost)
    assert starts[1]["resumed_at_samples"] >= heard.of("checkpoint")[1]["samples"]


def test_a_stopped_training_goes_on_when_it_is_called_again(client, tmp_path):
    settings = config(num_epochs=6, checkpoint_every_s=0.05, validate_every_epochs=99.0)
    heard = Meddler(When("checkpoint", 3, stop))
    with pytest.raises(StoppedByTestError):
        train_synchronous(client, SLOW, settings, cluster(2), tmp_path, {}, heard)
    done, again = heard.of("checkpoint")[-1]["samples"], Listener()
    result = train_synchronous(client, SLOW, settings, cluster(2), tmp_path, {}, again)
    assert again.of("start")[0]["resumed_at_samples"] == done > 0
    assert torch.equal(result.parameters, in_this_process(settings, 2)[0])
    finished = train_synchronous(client, SLOW, settings, cluster(2), tmp_path, {})
    assert finished.already_complete
    assert torch.equal(finished.parameters, result.parameters)


def test_an_interrupted_training_leaves_a_checkpoint(client, tmp_path):
    settings = config(num_epochs=1000, validate_every_epochs=999.0)
    heard = Meddler(When("progress", 2, lambda row: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        train_synchronous(client, SLOW, settings, cluster(2), tmp_path, {}, heard)
    (checkpoint,) = heard.of("checkpoint")
    assert checkpoint["samples"] >= heard.of("progress")[0]["samples"] > 0
    assert heard.of("stopping")


def test_a_rank_that_is_lost_again_and_again_ends_the_run(client, tmp_path):
    def strike(row: Row) -> None:
        if row["replica"] == 0:
            real_kill(row["pid"], "synchronous worker")

    heard = Meddler(When("rank_joined", None, strike))
    match = r"rank 0 was lost 2 times, cluster.max_restarts=1"
    with pytest.raises(RunFailedError, match=match) as raised:
        train_synchronous(client, SLOW, config(), cluster(2), tmp_path, {}, heard)
    for row in heard.of("rank_joined"):
        if row["replica"] == 0:
            ended = f"replica-0: process {row['pid']} was killed by signal 9 (SIGKILL)"
            assert ended in str(raised.value)


def test_a_rank_that_cannot_build_its_problem_ends_the_run_with_its_error(client, tmp_path):
    factory = functools.partial(broken, os.getpid())
    with pytest.raises(RunFailedError, match=r"replica-\d-\w+ failed: FileNotFoundError.*no such"):
        train_synchronous(client, factory, config(), cluster(2), tmp_path, {})


def test_a_loss_that_is_no_number_ends_the_run(client, tmp_path):
    with pytest.raises(RunFailedError, match=r"replica-\d-\w+ failed: .*step 0: the loss is nan"):
        train_synchronous(client, hopeless, config(), cluster(2), tmp_path, {})
