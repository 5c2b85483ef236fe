"""Whole runs with durability=power, with threads for roles: lost memory, full logs, bad disks."""

import os
from pathlib import Path

import pytest
import torch

from engine.block_file import BLOCK
from engine.config import DownpourConfig, MomentumConfig
from engine.inprocess import train_in_process
from engine.log_file import HEAD_BYTES
from engine.push_log import LogFailedError
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier, ensemble
from tests.engine.rows import Listener, Meddler, Row, StoppedByTestError, When, stop
from tests.engine.threaded import latest, threaded_run

MINIBATCHES_PER_EPOCH = sum(-(-size // 4) for size in UNIT_SIZES)
LONG = 10  # epochs


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Reports and decisions ten times as often as in real runs: less to wait for."""
    monkeypatch.setattr("engine.replica_role._REPORT_S", 0.05)
    monkeypatch.setattr("engine.training._TICK_S", 0.02)


def config(**changed) -> DownpourConfig:
    fields = {"minibatch_size": 4, "num_epochs": LONG, "validate_every_epochs": 99.0}
    return DownpourConfig(**fields | {"durability": "power"} | changed)


@pytest.mark.parametrize("changed", [{}, {"n_push": 3, "n_fetch": 2}, {"overlap_fetch": True}])
def test_every_push_is_applied_once_and_the_log_goes_with_the_final_checkpoint(tmp_path, changed):
    settings = config(checkpoint_every_s=0.1, max_checkpoint_share=1.0, **changed)
    heard = Listener()
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        final = run.drive()
    assert final.num_counted == LONG * NUM_SAMPLES
    assert final.num_steps == LONG * MINIBATCHES_PER_EPOCH
    if not changed:
        assert [shard.version for shard in final.shards] == [LONG * MINIBATCHES_PER_EPOCH] * 2
    assert len(heard.of("checkpoint")) > 1
    # What every checkpoint covers was removed when it was committed.
    assert all(len(list(folder.glob("*.log"))) <= 2 for folder in tmp_path.glob("log/shard-*"))


def test_one_replica_computes_the_bits_of_the_in_process_run(tmp_path):
    settings = config(num_epochs=3, rule=MomentumConfig(learning_rate=0.05))
    with threaded_run(tmp_path, settings, Listener(), num_replicas=1, num_shards=3) as run:
        run.start_all()
        final = run.drive()
    other = train_in_process(classifier(), settings, num_replicas=1, num_shards=3)
    assert torch.equal(final.read_parameters(), other.parameters)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_a_shard_whose_memory_is_gone_comes_back_from_the_log_and_nobody_stops(
    tmp_path, num_replicas
):
    def on_another_host(row: Row) -> None:
        (run.spec.memory / "shard-01.state").unlink()
        run.start_shard(1)

    heard = Meddler(
        When("checkpoint", 2, lambda row: run.hang_up_on("shard", 1)),
        When("shard_lost", None, on_another_host),
    )
    settings = config(
        num_epochs=2 * LONG,
        checkpoint_every_s=0.15,
        max_checkpoint_share=1.0,
        rule=MomentumConfig(learning_rate=0.05),
    )
    with threaded_run(tmp_path, settings, heard, num_replicas=num_replicas) as run:
        run.start_all()
        final = run.drive()
    first, second = (row for row in heard.of("shard_serving") if row["shard"] == 1)
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert second["restored_from"].startswith("checkpoint")
    assert [shard.version for shard in final.shards] == [2 * LONG * MINIBATCHES_PER_EPOCH] * 2
    if num_replicas == 1:
        other = train_in_process(classifier(), settings, num_replicas=1, num_shards=2)
        assert torch.equal(final.read_parameters(), other.parameters)


@pytest.mark.parametrize(
    ("factory", "pushed_to"),
    [(classifier, [True, True]), (ensemble, [True, True, True, False])],
    ids=["everywhere", "partition"],
)
def test_a_run_whose_memory_is_gone_goes_on_with_every_acknowledged_push(
    tmp_path, factory, pushed_to
):
    settings = config(rule=MomentumConfig(learning_rate=0.05))
    heard = Meddler(When("progress", 3, stop))
    roles = {"num_replicas": 1, "num_shards": len(pushed_to), "factory": factory}
    with threaded_run(tmp_path, settings, heard, **roles) as run:
        run.start_all()
        with pytest.raises(StoppedByTestError):
            run.drive()
    acknowledged = heard.of("progress")[-1]["samples"]
    assert latest(tmp_path).num_counted == 0  # there is no checkpoint but the first

    again = Listener()
    with threaded_run(tmp_path, settings, again, **roles) as run:
        run.start_all()
        final = run.drive()
    assert again.of("start")[0]["resumed_at_samples"] >= acknowledged > 0
    versions = [LONG * MINIBATCHES_PER_EPOCH * pushed for pushed in pushed_to]
    assert [shard.version for shard in final.shards] == versions
    other = train_in_process(factory(), settings, num_replicas=1, num_shards=len(pushed_to))
    assert torch.equal(final.read_parameters(), other.parameters)


def test_the_log_stays_within_its_limit_and_has_checkpoints_made_early(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.push_log._ASK_S", 0.02)
    monkeypatch.setattr("engine.block_file._STEP", BLOCK)
    limit, num_replicas = 80 * BLOCK, 3
    sizes = []

    def measure(row: Row) -> None:
        folders = tmp_path.glob("log/shard-*")
        sizes.extend(sum(records(path) for path in folder.glob("*.log")) for folder in folders)

    heard = Meddler(When("progress", None, measure))
    settings = config(num_epochs=2 * LONG, checkpoint_every_s=3600.0, log_bytes=limit)
    with threaded_run(tmp_path, settings, heard, num_replicas=num_replicas) as run:
        run.start_all()
        final = run.drive()
    assert final.num_counted == 2 * LONG * NUM_SAMPLES
    assert len(heard.of("checkpoint")) > 2
    assert limit / 4 < max(sizes) <= limit + num_replicas * BLOCK  # a push a replica


def records(path: Path) -> int:
    """Bytes of a log beside its head."""
    try:
        return max(0, path.stat().st_size - HEAD_BYTES)
    except FileNotFoundError:
        return 0


def test_a_disk_that_cannot_sync_ends_the_run_with_its_name_and_no_false_acknowledgement(
    tmp_path, monkeypatch
):
    real, left = os.fdatasync, [60]

    def failing(descriptor: int) -> None:
        left[0] -= os.readlink(f"/proc/self/fd/{descriptor}").endswith(".log")
        if left[0] == 0:
            left[0] = -1
            raise OSError(5, "Input/output error")
        real(descriptor)

    def run_until_it_fails() -> None:
        with threaded_run(tmp_path, config(), heard) as run:
            run.start_all()
            run.drive()

    monkeypatch.setattr("engine.block_file.os.fdatasync", failing)
    heard = Listener()
    named = r"log/shard-0.*Input/output error.*same command again"
    with pytest.raises(LogFailedError, match=named):
        run_until_it_fails()
    monkeypatch.undo()

    acknowledged = max((row["samples"] for row in heard.of("progress")), default=0)
    again = Listener()
    with threaded_run(tmp_path, config(), again) as run:
        run.start_all()
        assert run.drive().num_counted == LONG * NUM_SAMPLES
    assert again.of("start")[0]["resumed_at_samples"] >= acknowledged
