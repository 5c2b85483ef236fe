"""Whole runs on real sockets and files, with threads for roles."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine import checkpoint
from engine.config import AdagradConfig, DownpourConfig, MomentumConfig
from engine.inprocess import train_in_process
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier
from tests.engine.rows import Listener, Meddler, StoppedByTestError, When, in_file, stop
from tests.engine.threaded import latest, threaded_run

MINIBATCHES_PER_EPOCH = sum(-(-size // 4) for size in UNIT_SIZES)
LONG = 20  # epochs: enough to interfere


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Reports and decisions ten times as often as in real runs: less to wait for."""
    monkeypatch.setattr("engine.replica_role._REPORT_S", 0.05)
    monkeypatch.setattr("engine.training._TICK_S", 0.02)


def config(**changed) -> DownpourConfig:
    fields = {"minibatch_size": 4, "num_epochs": LONG, "validate_every_epochs": 99.0}
    return DownpourConfig(**fields | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"rule": MomentumConfig(learning_rate=0.05)},
        {"rule": AdagradConfig(gamma=0.1), "n_fetch": 2, "n_push": 3},
    ],
)
def test_one_replica_computes_the_bits_of_the_in_process_run(tmp_path, changed):
    settings = config(num_epochs=4, **changed)
    with threaded_run(tmp_path, settings, Listener(), num_replicas=1, num_shards=3) as run:
        run.start_all()
        final = run.drive()
    other = train_in_process(classifier(), settings, num_replicas=1, num_shards=3)
    assert torch.equal(final.read_parameters(), other.parameters)


def test_every_minibatch_of_every_replica_is_one_update_of_every_shard(tmp_path):
    heard = Listener()
    with threaded_run(tmp_path, config(), heard, num_replicas=3) as run:
        run.start_all()
        final = run.drive()
    num_minibatches = LONG * MINIBATCHES_PER_EPOCH
    assert [shard.version for shard in final.shards] == [num_minibatches] * 2
    assert final.num_counted == LONG * NUM_SAMPLES
    assert final.num_steps == num_minibatches
    last = {row["replica"]: row["replica_samples"] for row in heard.of("progress")}
    assert sum(last.values()) == LONG * NUM_SAMPLES


def test_clipped_gradients_are_counted(tmp_path):
    heard = Listener()
    settings = config(num_epochs=2, clip={"max_norm": 1e-6})
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        run.drive()
    assert sum(row["clipped"] for row in heard.of("progress")) == 2 * MINIBATCHES_PER_EPOCH


def test_all_shards_of_a_checkpoint_contain_the_same_pushes(tmp_path):
    settings = config(checkpoint_every_s=0.02, max_checkpoint_share=1.0, keep_checkpoints=1000)
    with threaded_run(tmp_path, settings, Listener(), num_replicas=4, num_shards=3) as run:
        run.start_all()
        run.drive()
    all_written = [checkpoint.read(path) for path in tmp_path.glob("checkpoints/0*")]
    assert len(all_written) > 5
    for written in all_written:
        # Each mini-batch is one update, and units end with a smaller one: 4 samples at most.
        versions = {shard.version for shard in written.shards}
        assert len(versions) == 1
        assert written.num_counted <= 4 * versions.pop()


def test_the_event_log_tells_the_run(tmp_path):
    heard = Listener()
    with threaded_run(tmp_path, config(validate_every_epochs=5.0), heard) as run:
        run.start_all()
        run.drive()
    assert in_file(tmp_path) == heard
    events = [row["event"] for row in heard if row["event"] != "progress"]
    assert events[0] == "start"
    assert sorted(events[1:5]) == ["replica_joined"] * 2 + ["shard_serving"] * 2
    assert events[-3:] == ["checkpoint", "validation", "finished"]
    assert {row["restored_from"] for row in heard.of("shard_serving")} == {"checkpoint"}
    assert heard.of("validation")[-1]["epoch"] == LONG
    assert heard.of("validation")[-1]["metrics"].keys() == {"error"}
    assert heard.of("start")[0]["num_samples_total"] == LONG * NUM_SAMPLES


def test_a_shard_that_comes_back_goes_on_from_the_memory_it_left(tmp_path):
    heard = Meddler(
        When("progress", 4, lambda row: run.hang_up_on("shard", 1)),
        When("shard_lost", None, lambda row: run.start_shard(row["shard"])),
    )
    with threaded_run(tmp_path, config(), heard) as run:
        run.start_all()
        final = run.drive()
    first, second = (row for row in heard.of("shard_serving") if row["shard"] == 1)
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert second["restored_from"].startswith("memory")
    assert second["version"] > first["version"] == 0
    assert [shard.version for shard in final.shards] == [LONG * MINIBATCHES_PER_EPOCH] * 2


def test_a_replica_that_was_given_up_starts_a_new_life(tmp_path):
    heard = Meddler(When("progress", 2, lambda row: run.hang_up_on("replica", 0)))
    with threaded_run(tmp_path, config(), heard) as run:
        run.start_all()
        final = run.drive()
        joined = [row["incarnation"] for row in heard.of("replica_joined") if not row["replica"]]
        assert joined == [1, 2]
        assert len(heard.of("replica_lost")) == len(heard.of("replica_settled")) == 1
        assert not (run.spec.memory / "replica-0000-0001").exists()  # its memory was freed
    assert final.num_counted == LONG * NUM_SAMPLES
    # Its last push may have reached one shard only; its samples count, so no other push has them.
    versions = [shard.version for shard in final.shards]
    assert max(versions) == LONG * MINIBATCHES_PER_EPOCH
    assert min(versions) >= LONG * MINIBATCHES_PER_EPOCH - 1


@pytest.mark.parametrize("rows", [1, 3])
def test_when_the_coordinator_goes_every_role_ends_by_itself(tmp_path, rows):
    heard = Meddler(When("progress", rows, stop))
    with threaded_run(tmp_path, config(num_epochs=10_000), heard) as run:
        run.start_all()
        with pytest.raises(StoppedByTestError):
            run.drive()
        run.close()
        assert run.all_end()
        assert run.errors == []


def test_an_interrupted_run_goes_on_from_its_newest_checkpoint(tmp_path):
    settings = config(checkpoint_every_s=0.1, max_checkpoint_share=1.0)
    heard = Meddler(When("checkpoint", 2, stop))
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        with pytest.raises(StoppedByTestError):
            run.drive()
    left = latest(tmp_path)
    assert 0 < left.num_counted < LONG * NUM_SAMPLES

    again = Listener()
    with threaded_run(tmp_path, settings, again, num_replicas=3) as run:
        run.start_all()
        final = run.drive()
    assert again.of("start")[0]["resumed_at_samples"] == left.num_counted
    assert again.of("start")[0]["time_s"] >= round(left.elapsed_s, 3)
    assert final.num_counted == LONG * NUM_SAMPLES
    last = {row["replica"]: row["replica_samples"] for row in again.of("progress")}
    assert sum(last.values()) == LONG * NUM_SAMPLES - left.num_counted


def test_a_run_that_is_told_to_stop_leaves_a_checkpoint_and_goes_on_from_it(tmp_path):
    heard = Meddler(When("progress", 3, lambda row: run.training.stop()))
    with threaded_run(tmp_path, config(), heard) as run:
        run.start_all()
        assert run.drive() is None
    left = latest(tmp_path)
    assert [row["event"] for row in heard if row["event"] != "progress"][-2:] == [
        "stopping",
        "checkpoint",
    ]
    assert heard.of("progress")[2]["samples"] <= left.num_counted < LONG * NUM_SAMPLES
    assert [shard.version for shard in left.shards] != [0, 0]

    again = Listener()
    with threaded_run(tmp_path, config(), again) as run:
        run.start_all()
        assert run.drive().num_counted == LONG * NUM_SAMPLES
    assert again.of("start")[0]["resumed_at_samples"] == left.num_counted


def test_a_checkpoint_that_cannot_be_written_is_reported_and_training_goes_on(tmp_path):
    def stand_in_the_way(row) -> None:
        (tmp_path / "checkpoints" / "000001.partial").write_text("no folder")

    heard = Meddler(When("start", 1, stand_in_the_way))
    with threaded_run(tmp_path, config(checkpoint_every_s=0.1), heard) as run:
        run.start_all()
        final = run.drive()
    assert "000001.partial" in heard.of("checkpoint_failed")[0]["reason"]
    assert final.id >= 2
    assert final.num_counted == LONG * NUM_SAMPLES


def test_a_checkpoint_that_cannot_be_committed_is_reported_and_training_goes_on(tmp_path):
    def stand_in_the_way(row) -> None:
        (tmp_path / "checkpoints" / "000001" / "not empty").mkdir(parents=True)

    heard = Meddler(When("start", 1, stand_in_the_way))
    settings = config(validate_every_epochs=5)  # the first checkpoint was to be measured
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        final = run.drive()
    (failed,) = heard.of("commit_failed")
    assert "000001" in failed["reason"]
    assert final.num_counted == LONG * NUM_SAMPLES


def test_a_run_in_two_parts_has_the_bits_of_the_whole_one(tmp_path):
    """One replica; the first part ends with an epoch, so both parts order samples alike."""

    def trained(folder: str, num_epochs: int) -> torch.Tensor:
        settings = config(rule=MomentumConfig(learning_rate=0.05), num_epochs=num_epochs)
        with threaded_run(tmp_path / folder, settings, Listener(), num_replicas=1) as run:
            run.start_all()
            return run.drive().read_parameters()

    trained("parts", num_epochs=1)
    assert torch.equal(trained("parts", num_epochs=2), trained("whole", num_epochs=2))


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(tmp_path):
    command = ["unshare", "-rm", sys.executable, "-m", "tests.engine.full_disk", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=60)
    reasons = [row["reason"] for row in in_file(tmp_path) if row["event"] == "checkpoint_failed"]
    assert len(reasons) == 2
    assert all("No space left on device" in reason for reason in reasons)


def test_a_slow_disk_makes_checkpoints_rarer_until_it_is_fast_again(tmp_path, monkeypatch):
    slow, written = [True], checkpoint.write_shard

    def write_shard(*arguments):
        if slow[0]:
            time.sleep(0.04)
        return written(*arguments)

    monkeypatch.setattr("engine.checkpoint.write_shard", write_shard)
    told: list[dict[str, float]] = []

    def hear(row):
        slow[0] = False
        told.append(row)
        if row["interval_s"] < told[0]["interval_s"]:  # a busy disk may make it longer before
            run.training.stop()

    heard = Meddler(When("checkpoint_interval", None, hear))
    settings = config(num_epochs=3000, checkpoint_every_s=0.1, max_checkpoint_share=0.2)
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        run.drive()
    first, last = told[0], told[-1]
    assert first["cost_s"] >= 0.04
    assert last["interval_s"] < first["interval_s"]
    assert first["interval_s"] == pytest.approx(first["cost_s"] / 0.2, abs=0.06)
    second = heard.of("checkpoint")[1]
    # From where the first one began, that is, before its cost.
    assert second["time_s"] - first["time_s"] >= first["interval_s"] - first["cost_s"] - 0.06
