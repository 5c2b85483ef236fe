"""Sandblaster on a real cluster: every kind of process is killed, the iterates stay the same."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distributed import Client

from engine import memory
from engine.dask_sandblaster import train_sandblaster
from engine.result import TrainingResult
from engine.roles import Ending, endings_heard
from tasks.cluster import open_cluster
from tests.engine.fuses import FUSES, fused
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES
from tests.engine.rows import Listener, Meddler, Row, When, in_file
from tests.engine.sandblaster.doomed import (
    CLUSTER,
    CONFIG,
    DEADLY_EVALUATION,
    FACTORY,
    IDENTITY,
)
from tests.engine.test_dask_train import wait_until_gone
from tests.kills import real_kill, was_killed

pytestmark = pytest.mark.dask
NUM_PORTIONS = sum(-(-size // CONFIG.minibatch_size) for size in UNIT_SIZES)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(CLUSTER) as client:
        yield client


@pytest.fixture(scope="module")
def calm(client, tmp_path_factory) -> tuple[TrainingResult, list[Row]]:
    """An undisturbed run and its rows."""
    heard = Listener()
    folder = tmp_path_factory.mktemp("calm")
    result = train_sandblaster(client, FACTORY, CONFIG, CLUSTER, folder, IDENTITY, heard)
    assert in_file(folder) == [stored(row) for row in heard]
    assert not (folder / "records").exists()
    again = train_sandblaster(client, FACTORY, CONFIG, CLUSTER, folder, IDENTITY)
    assert again.already_complete
    assert torch.equal(again.parameters, result.parameters)
    return result, heard


def stored(row: Row) -> Row:
    """A row as JSON gives it back: with keys of text."""
    return {
        k: {str(a): b for a, b in v.items()} if isinstance(v, dict) else v for k, v in row.items()
    }


def iterates(rows: list[Row]) -> list[tuple[int, float, float]]:
    """Iteration, loss and gradient norm of every committed iterate; one may be told twice."""
    told = [r for r in rows if r["event"] == "iteration"]
    return sorted({(r["iteration"], r["loss"], r["gradient_norm"]) for r in told})


def test_every_portion_of_every_evaluation_is_told_of_and_the_budget_is_kept(calm):
    result, rows = calm
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    assert result.num_samples == len(evaluations) * NUM_SAMPLES
    assert CONFIG.num_epochs <= len(evaluations) <= CONFIG.num_epochs + 3
    for row in evaluations:
        assert sum(row["portions"].values()) >= NUM_PORTIONS
    assert result.num_steps == iterates(rows)[-1][0]


def test_killed_and_frozen_processes_change_no_bit_of_any_iterate(client, tmp_path, calm):
    def kill_both_shards(row: Row) -> None:
        for serving in heard.of("shard_serving"):
            real_kill(serving["pid"], "sandblaster shard")

    # Beside that, the fuses kill one replica and stop one.
    heard = Meddler(When("evaluation", 3, kill_both_shards))
    factory = functools.partial(fused, str(tmp_path), pause_s=0.001)
    ended: list[Ending] = []
    with endings_heard(client, ended.append):
        result = train_sandblaster(client, factory, CONFIG, CLUSTER, tmp_path, IDENTITY, heard)
    replicas = [ending for ending in ended if ending.resource.startswith("replica")]
    assert len(replicas) >= len(FUSES)  # the frozen one was killed by the coordinator
    for ending in replicas:
        was_killed("sandblaster replica", ending.code)
    assert all((tmp_path / fuse).exists() for fuse in FUSES)
    assert sorted(row["shard"] for row in heard.of("shard_lost")) == [0, 1]
    assert len(heard.of("replica_lost")) >= len(FUSES)
    assert iterates(heard) == iterates(calm[1])
    assert torch.equal(result.parameters, calm[0].parameters)
    assert not list(memory.shared_root().glob(f"verydeep-{os.getpid()}-*"))


def test_a_coordinator_killed_in_a_line_search_goes_on_to_the_same_iterates(client, tmp_path, calm):
    command = [sys.executable, "-m", "tests.engine.sandblaster.doomed", str(tmp_path)]
    killed = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    was_killed("sandblaster coordinator", killed.wait(timeout=60))
    before = in_file(tmp_path)
    assert sum(row["event"] == "evaluation" for row in before) == DEADLY_EVALUATION
    assert wait_until_gone({row["pid"] for row in before if "pid" in row})

    heard = Listener()
    result = train_sandblaster(client, FACTORY, CONFIG, CLUSTER, tmp_path, IDENTITY, heard)
    assert heard.of("start")[0]["resumed_at_samples"] == (DEADLY_EVALUATION - 1) * NUM_SAMPLES
    assert iterates([*before, *heard]) == iterates(calm[1])
    assert torch.equal(result.parameters, calm[0].parameters)
