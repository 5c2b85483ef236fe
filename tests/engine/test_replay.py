"""A recorded run, whatever happened in it, is repeated in one process to the same bits."""

import json

import pytest
import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint
from engine.config import AdagradConfig, DownpourConfig, MomentumConfig
from engine.replay import ReplayError, replay
from tests.engine.problems import NUM_SAMPLES, classifier
from tests.engine.rows import Listener, Meddler, StoppedByTestError, When, stop
from tests.engine.threaded import latest, threaded_run


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr("engine.replica_role._REPORT_S", 0.05)
    monkeypatch.setattr("engine.training._TICK_S", 0.02)


def config(**changed) -> DownpourConfig:
    fields = {"minibatch_size": 4, "num_epochs": 6, "validate_every_epochs": 99.0, "record": True}
    return DownpourConfig(**fields | {"keep_checkpoints": 99} | changed)


def replayed(folder, settings, start: Checkpoint, end: Checkpoint) -> torch.Tensor:
    vectors = [(start.read_shard(k), shard.version) for k, shard in enumerate(start.shards)]
    record = folder / "record" / start.folder.name
    versions = [shard.version for shard in end.shards]
    return replay(classifier(), settings, record, vectors, versions)


@pytest.mark.parametrize(
    "changed",
    [
        {"rule": MomentumConfig(learning_rate=0.05)},
        {"rule": AdagradConfig(gamma=0.1), "n_fetch": 2, "n_push": 3, "alpha": 0.01},
        {"overlap_fetch": True, "schedule": {"drop_at": [0.5], "drop_by": [10.0]}},
        {"clip": {"max_norm": 0.1}, "max_staleness": 2},
    ],
    ids=["plain", "rare", "overlapping", "refusing"],
)
def test_an_asynchronous_run_is_repeated_bit_for_bit(tmp_path, changed):
    settings = config(**changed)
    with threaded_run(tmp_path, settings, Listener(), num_replicas=3) as run:
        run.start_all()
        final = run.drive()
    start = checkpoint.read(tmp_path / "checkpoints" / "000000")
    assert torch.equal(replayed(tmp_path, settings, start, final), final.read_parameters())


def test_a_run_that_lost_a_replica_and_a_shard_and_was_resumed_is_repeated(tmp_path):
    settings = config(num_epochs=20, checkpoint_every_s=0.2, max_checkpoint_share=1.0)
    heard = Meddler(
        When("progress", 2, lambda row: run.hang_up_on("replica", 0)),
        When("progress", 3, lambda row: run.hang_up_on("shard", 1)),
        When("shard_lost", None, lambda row: run.start_shard(row["shard"])),
        When("checkpoint", 2, stop),
    )
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        with pytest.raises(StoppedByTestError):
            run.drive()
    assert heard.of("replica_lost")
    assert heard.of("shard_lost")
    first, middle = checkpoint.read(tmp_path / "checkpoints" / "000000"), latest(tmp_path)
    assert 0 < middle.num_counted < 20 * NUM_SAMPLES
    assert torch.equal(replayed(tmp_path, settings, first, middle), middle.read_parameters())

    with threaded_run(tmp_path, settings, Listener()) as run:
        run.start_all()
        final = run.drive()
    assert torch.equal(replayed(tmp_path, settings, middle, final), final.read_parameters())


def test_a_record_that_lacks_a_push_is_named(tmp_path):
    settings = config(num_epochs=2)
    with threaded_run(tmp_path, settings, Listener()) as run:
        run.start_all()
        final = run.drive()
    log = tmp_path / "record" / "000000" / "replica-0001-0001.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    takes = [i for i, line in enumerate(lines) if json.loads(line) == ["take"]]
    log.write_text("".join(lines[: takes[3]]))
    start = checkpoint.read(tmp_path / "checkpoints" / "000000")
    with pytest.raises(ReplayError, match=r"shard 0 gets no further .* push \(1, 1, 4\)"):
        replayed(tmp_path, settings, start, final)
