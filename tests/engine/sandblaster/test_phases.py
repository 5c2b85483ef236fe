"""Downpour, then Sandblaster, then Downpour again: one run, one loss curve."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distributed import Client
from torch import Tensor

from engine import checkpoint, memory, memory_folder
from engine.checkpoint import Checkpoint
from engine.config import DownpourConfig
from engine.dask_phases import phase_settings, train_phases
from engine.sandblaster.config import PhaseConfig, SandblasterConfig
from engine.state import ShardState
from tasks.cluster import open_cluster
from tasks.report.history import history_of
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier
from tests.engine.rows import Listener, Meddler, Row, When, in_file
from tests.engine.sandblaster.doomed import CLUSTER
from tests.engine.sandblaster.doomed_phases import CONFIG, FACTORY, InPhase

pytestmark = pytest.mark.dask
MINIBATCHES_PER_EPOCH = sum(-(-size // 4) for size in UNIT_SIZES)
Vectors = list[dict[str, Tensor]]  # of each shard


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(CLUSTER) as client:
        yield client


def test_every_phase_begins_where_the_one_before_ended_and_the_curve_is_one(client, tmp_path):
    heard = Listener()
    result = train_phases(client, classifier, CONFIG, CLUSTER, tmp_path, {}, heard)

    first = heard.of("iteration")[0]
    assert first["iteration"] == 0
    assert first["loss"] == pytest.approx(
        whole_loss(last_of(tmp_path, 0).read_parameters()), rel=1e-5
    )
    assert torch.equal(last_of(tmp_path, 2).read_parameters(), result.parameters)
    assert [row["algorithm"] for row in heard.of("phase")] == [p.algorithm for p in CONFIG.phases]
    for name in ("time_s", "samples"):
        values = [r[name] for r in heard if name in r and r["event"] in ("progress", "iteration")]
        assert values == sorted(values)
    assert len(heard.of("start")) == len(heard.of("finished")) == 1
    assert heard[-1]["samples"] == result.num_samples >= CONFIG.num_epochs * NUM_SAMPLES

    history = history_of(in_file(tmp_path))
    assert history.complete
    assert not history.incidents
    assert [phase.algorithm for phase in history.phases] == [p.algorithm for p in CONFIG.phases]
    assert {point.samples <= 3 * NUM_SAMPLES for point in history.loss} == {True, False}
    assert sum(history.samples_of.values()) >= result.num_samples
    assert whole_loss(result.parameters) < first["loss"]


def test_one_set_of_shards_serves_all_phases_with_what_it_holds(client, tmp_path):
    beginnings: dict[int, Vectors] = {}

    def look(row: Row) -> None:
        if row["phase"]:
            beginnings[row["phase"]] = in_memory()

    heard = Meddler(When("phase", None, look))
    train_phases(client, classifier, CONFIG, CLUSTER, tmp_path, {}, heard)

    served = heard.of("shard_serving")  # once each: no process, and not even a role, begins anew
    assert [row["shard"] for row in sorted(served, key=lambda row: row["shard"])] == [0, 1]
    ends = [on_disk(last_of(tmp_path, phase)) for phase in range(3)]
    assert same(beginnings[1], ends[0])
    assert same(beginnings[2], ends[1])
    for name, moved in (("values", True), ("squares", False)):
        # Sandblaster moves the parameters and leaves the rule's slots alone.
        both = [torch.cat([shard[name] for shard in ends[phase]]) for phase in (0, 1)]
        assert torch.equal(*both) != moved
    sums = [torch.cat([shard["squares"] for shard in ends[phase]]) for phase in (1, 2)]
    assert (sums[1] >= sums[0]).all()
    assert sums[0].min() > 0
    pushes = 2 * 3 * MINIBATCHES_PER_EPOCH  # the version goes on, too
    assert [shard.version for shard in last_of(tmp_path, 2).shards] == [pushes] * 2


def test_a_shard_killed_in_any_phase_comes_back_from_memory(client, tmp_path):
    class Killer(InPhase):
        def act(self) -> None:
            os.kill(self.of("shard_serving")[-1]["pid"], signal.SIGKILL)

    heard = Killer(0, 1, 2)
    result = train_phases(client, FACTORY, CONFIG, CLUSTER, tmp_path, {}, heard)
    assert len(heard.of("shard_lost")) == 3
    again = [row for row in heard.of("shard_serving") if row["epoch"] > 1]
    assert len(again) == 3
    assert all(row["restored_from"].startswith("memory") for row in again)
    pushes = 2 * 3 * MINIBATCHES_PER_EPOCH
    assert [shard.version for shard in last_of(tmp_path, 2).shards] == [pushes] * 2
    assert result.num_samples >= CONFIG.num_epochs * NUM_SAMPLES
    assert not list(memory_folder.root().glob(f"verydeep-{os.getpid()}-*"))


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_a_run_killed_in_a_phase_goes_on_there(client, tmp_path, phase):
    command = [sys.executable, "-m", "tests.engine.sandblaster.doomed_phases", str(tmp_path)]
    killed = subprocess.Popen([*command, str(phase)], cwd=Path(__file__).parents[3])
    assert killed.wait(timeout=60) == -signal.SIGKILL
    told = in_file(tmp_path)[-1]

    heard = Listener()
    result = train_phases(client, FACTORY, CONFIG, CLUSTER, tmp_path, {}, heard)
    assert [row["phase"] for row in heard.of("phase")] == [0, 1, 2][phase:]
    resumed_at = heard.of("start")[0]["resumed_at_samples"]
    # A push that was told of is not repeated; an iterate is, when it was told before its record.
    lost = 2 * NUM_SAMPLES if phase == 1 else 0
    assert told["samples"] - lost <= resumed_at <= told["samples"] + NUM_SAMPLES
    assert result.num_samples >= CONFIG.num_epochs * NUM_SAMPLES
    sums = [
        torch.cat([shard["squares"] for shard in on_disk(last_of(tmp_path, k))]) for k in range(3)
    ]
    assert torch.equal(sums[0], sums[1])
    assert (sums[2] >= sums[1]).all()


def last_of(folder: Path, phase: int) -> Checkpoint:
    """The newest checkpoint of a phase."""
    return checkpoint.read(max((folder / f"phase-{phase}/checkpoints").glob("0*[0-9]")))


def on_disk(found: Checkpoint) -> Vectors:
    return [found.read_shard(shard) for shard in range(len(found.shards))]


def in_memory() -> Vectors:
    """What the shards of this process's run hold now: parameters and Adagrad's sums."""
    (folder,) = memory_folder.root().glob(f"verydeep-{os.getpid()}-*")
    vectors = []
    for index, part in enumerate(classifier().layout.slices(CLUSTER.num_shards)):
        count, dtype = part.stop - part.start, torch.float32
        num_bytes = ShardState.num_bytes(count, 1, dtype)
        file = memory.open_existing(folder / f"shard-{index:02d}.state", num_bytes)
        state = ShardState(file, count, 1, dtype)
        values, sums = state.values.clone(), state.slots[0].clone()
        vectors.append({"values": values, "squares": sums})
    return vectors


def same(some: Vectors, others: Vectors) -> bool:
    return all(
        one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(some, others, strict=True)
    )


def whole_loss(parameters: Tensor) -> float:
    """Mean loss over all samples."""
    from engine.ledger import Lease
    from tests.engine.problems import UNIT_SIZES

    problem, total = classifier(), 0.0
    for unit, size in enumerate(UNIT_SIZES):
        for payload, count in problem.minibatches(Lease(0, 0, unit, 0, size), size):
            total += problem.loss(parameters, payload) * count
    return total / NUM_SAMPLES


def test_a_phase_has_its_share_of_the_epochs_and_the_run_s_settings():
    settings = phase_settings(CONFIG, CONFIG.phases[0], 0)
    assert isinstance(settings, DownpourConfig)
    assert (settings.num_epochs, settings.minibatch_size, settings.rule) == (3, 4, CONFIG.rule)
    assert settings.schedule.part == (0.0, 0.25)
    last = phase_settings(CONFIG, CONFIG.phases[2], 2)
    assert last.schedule.part == (0.75, 1.0)
    assert phase_settings(CONFIG, CONFIG.phases[1], 1).num_epochs == 6


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"shares of phases are 0\.5: want them to add"):
        SandblasterConfig(phases=(PhaseConfig(algorithm="sandblaster", share=0.5),))
