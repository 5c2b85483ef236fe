"""Sandblaster on a real cluster: every kind of process is killed, the iterates stay the same."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from distributed import Client

from engine import memory_folder
from engine.dask_sandblaster import train_sandblaster
from engine.result import TrainingResult
from engine.roles import ENDINGS
from tasks.cluster import open_cluster
from tests.engine.fuses import FUSES, fused
from tests.engine.problems import NUM_SAMPLES
from tests.engine.rows import Listener, Meddler, Row, When, in_file
from tests.engine.sandblaster.doomed import (
    CLUSTER,
    CONFIGS,
    DEADLY_EVALUATION,
    FACTORY,
    IDENTITY,
    SAMPLED,
)
from tests.engine.test_dask_train import wait_until_gone
from tests.kills import real_kill, was_killed

pytestmark = pytest.mark.dask


class Calm(NamedTuple):
    """An undisturbed run of one optimiser."""

    name: str
    result: TrainingResult
    rows: list[Row]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(CLUSTER) as client:
        yield client


@pytest.fixture(scope="module", params=CONFIGS)
def calm(client, tmp_path_factory, request) -> Calm:
    heard, config = Listener(), CONFIGS[request.param]
    folder = tmp_path_factory.mktemp("calm")
    result = train_sandblaster(client, FACTORY, config, CLUSTER, folder, IDENTITY, heard)
    assert in_file(folder) == [stored(row) for row in heard]
    assert not (folder / "records").exists()
    again = train_sandblaster(client, FACTORY, config, CLUSTER, folder, IDENTITY)
    assert again.already_complete
    assert torch.equal(again.parameters, result.parameters)
    return Calm(request.param, result, heard)


def stored(row: Row) -> Row:
    """A row as JSON gives it back: with keys of text."""
    return {
        k: {str(a): b for a, b in v.items()} if isinstance(v, dict) else v for k, v in row.items()
    }


def iterates(rows: list[Row]) -> list[tuple[int, float, float]]:
    """Iteration, loss and gradient norm of every committed iterate; one may be told twice."""
    told = [r for r in rows if r["event"] == "iteration"]
    return sorted({(r["iteration"], r["loss"], r["gradient_norm"]) for r in told})


def samples(evaluations: list[Row]) -> int:
    """Samples processed in some evaluations."""
    return sum(row["batch_samples"] for row in evaluations)


def test_every_portion_of_every_evaluation_is_told_of_and_the_budget_is_kept(calm):
    evaluations = [row for row in calm.rows if row["event"] == "evaluation"]
    config, result = CONFIGS[calm.name], calm.result
    assert result.num_samples == samples(evaluations)
    assert 0 <= result.num_samples - config.num_epochs * NUM_SAMPLES <= 3 * NUM_SAMPLES
    for row in evaluations:
        assert sum(row["portions"].values()) >= -(-row["batch_samples"] // config.minibatch_size)
    assert result.num_steps == iterates(calm.rows)[-1][0]
    full = {row["batch_samples"] for row in evaluations} == {NUM_SAMPLES}
    assert full == (calm.name == "lbfgs")


def test_killed_and_frozen_processes_change_no_bit_of_any_iterate(client, tmp_path, calm):
    def kill_both_shards(row: Row) -> None:
        for serving in heard.of("shard_serving"):
            real_kill(serving["pid"], "sandblaster shard")

    # Beside that, the fuses kill one replica and stop one.
    heard = Meddler(When("evaluation", 3, kill_both_shards))
    # Slow enough that the run outlasts the silence after which the stopped one is given up.
    factory = functools.partial(fused, str(tmp_path), pause_s=0.02)
    config = CONFIGS[calm.name]
    num_before = len(client.get_events(ENDINGS))
    result = train_sandblaster(client, factory, config, CLUSTER, tmp_path, IDENTITY, heard)
    ended = [ending for _, ending in client.get_events(ENDINGS)][num_before:]
    replicas = [ending for ending in ended if ending["resource"].startswith("replica")]
    assert len(replicas) >= len(FUSES)  # the frozen one was killed by the coordinator
    for ending in replicas:
        was_killed("sandblaster replica", ending["code"])
    assert all((tmp_path / fuse).exists() for fuse in FUSES)
    assert sorted(row["shard"] for row in heard.of("shard_lost")) == [0, 1]
    assert len(heard.of("replica_lost")) >= len(FUSES)
    assert iterates(heard) == iterates(calm.rows)
    assert torch.equal(result.parameters, calm.result.parameters)
    assert not list(memory_folder.root().glob(f"verydeep-{os.getpid()}-*"))


def test_a_coordinator_killed_in_a_line_search_goes_on_to_the_same_iterates(client, tmp_path, calm):
    command = [sys.executable, "-m", "tests.engine.sandblaster.doomed", str(tmp_path)]
    command.append(calm.name)
    killed = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    was_killed("sandblaster coordinator", killed.wait(timeout=60))
    before = in_file(tmp_path)
    evaluated = [row for row in before if row["event"] == "evaluation"]
    assert len(evaluated) == DEADLY_EVALUATION[calm.name]
    assert wait_until_gone({row["pid"] for row in before if "pid" in row})

    heard = Listener()
    config = CONFIGS[calm.name]
    result = train_sandblaster(client, FACTORY, config, CLUSTER, tmp_path, IDENTITY, heard)
    # The newest record may not have been on the disk yet; the one before was.
    committed = [row["samples"] for row in before if row["event"] == "iteration"][-2:]
    assert 0 < committed[-1] < samples(evaluated)
    assert heard.of("start")[0]["resumed_at_samples"] in committed
    assert iterates([*before, *heard]) == iterates(calm.rows)
    assert torch.equal(result.parameters, calm.result.parameters)


def test_batches_for_another_number_of_samples_are_refused(client, tmp_path):
    optimiser = replace(SAMPLED, num_samples=NUM_SAMPLES + 1)
    config = replace(CONFIGS["multibatch"], optimiser=optimiser)
    with pytest.raises(ValueError, match=r"num_samples=121, but the training data has 120"):
        train_sandblaster(client, FACTORY, config, CLUSTER, tmp_path, IDENTITY)
