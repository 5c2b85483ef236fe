"""The warm start: one replica alone, its end kept, and runs that begin where another one was."""

import pytest
import torch
from pydantic import ValidationError

from engine import checkpoint
from engine.checkpoint import CheckpointError
from engine.config import (
    AdagradConfig,
    AdamWConfig,
    DownpourConfig,
    RuleConfig,
    SgdConfig,
    SingleConfig,
    WarmStartConfig,
)
from engine.identity import CheckpointMismatchError
from engine.instructions import RunFailedError
from engine.single import train_single
from engine.start import full_identity, resume_or_begin
from engine.warm_start import FOLDER
from tests.engine.conversation import HOUR, Conversation
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier, rule_name
from tests.engine.rows import Listener, Meddler, StoppedByTestError, When, stop
from tests.engine.threaded import threaded_run


def talk_with(**bounds) -> Conversation:
    config = DownpourConfig(
        minibatch_size=5,
        num_epochs=1,
        checkpoint_every_s=HOUR,
        validate_every_epochs=0.25,
        warm_start=WarmStartConfig(**bounds),
    )
    return Conversation(config)


def snapshot(talk: Conversation, shards: list[int]) -> None:
    """Time passes, and every shard writes what it is asked for."""
    talk.tick()
    (request,) = talk.sent(shards[0], "snapshot")
    for shard in shards:
        talk.snapshotted(shard, request["id"])


def test_one_replica_works_alone_until_its_steps_are_done_and_kept():
    talk = talk_with(steps=3)
    shards, (alice, bob) = talk.all_join()
    lease = talk.lease(bob)  # whoever asks first
    assert talk.lease(alice) is None
    talk.progress(bob, lease, 5, steps=2)
    talk.tick()
    assert not talk.sent(shards[0])
    talk.progress(bob, lease, 10, steps=1)
    assert talk.lease(alice) is None
    assert talk.lease(bob)
    snapshot(talk, shards)
    assert [commit.warm_start for commit in talk.commits()] == [True]
    assert talk.rows("warm_start_over") == [{"samples": 10, "steps": 3}]
    assert talk.lease(alice)


def test_it_lasts_for_so_many_seconds_of_training():
    talk = talk_with(seconds=60)
    shards, (alice, bob) = talk.all_join()
    talk.tick()
    assert talk.lease(bob)
    talk.tick_with_heartbeats(59, [*shards, alice, bob])
    assert talk.lease(alice) is None
    talk.tick_with_heartbeats(1, [*shards, alice, bob])
    (request,) = talk.sent(shards[0], "snapshot")
    for shard in shards:
        talk.snapshotted(shard, request["id"])
    assert talk.lease(alice)


def test_it_lasts_until_the_validation_is_good_enough():
    talk = talk_with(metric="error", at_most=0.5)
    shards, (alice, bob) = talk.all_join()
    for error, others_work in [(0.6, False), (0.5, True)]:
        for _ in range(2):
            talk.progress(bob, lease := talk.lease(bob), lease.stop)
        snapshot(talk, shards)
        talk.coordinator.measured(False, {"error": error})
        assert talk.lease(alice) is None  # not kept yet
        if others_work:
            snapshot(talk, shards)
            assert talk.commits()[0].warm_start
            assert talk.lease(alice)


def test_a_metric_that_the_problem_does_not_measure_ends_the_run():
    talk = talk_with(metric="accuracy", at_most=0.5)
    with pytest.raises(RunFailedError, match=r"metric=accuracy: validation measures \['error'\]"):
        talk.coordinator.measured(False, {"error": 0.4})


def test_the_first_of_several_bounds_ends_it():
    talk = talk_with(steps=1, seconds=HOUR, metric="error", at_most=0.1)
    shards, (alice, bob) = talk.all_join()
    talk.progress(bob, lease := talk.lease(bob), lease.stop)
    snapshot(talk, shards)
    assert talk.lease(alice)


def test_when_its_replica_dies_another_one_takes_its_place():
    talk = talk_with(steps=3)
    _, (alice, bob) = talk.all_join()
    assert talk.lease(alice)
    assert talk.lease(bob) is None
    talk.lose(alice)
    assert talk.lease(bob)
    again = talk.hello("replica", 0)
    assert talk.lease(again) is None


def test_nobody_waits_for_an_end_that_cannot_be_written():
    talk = talk_with(steps=1)
    shards, (alice, bob) = talk.all_join()
    talk.progress(bob, lease := talk.lease(bob), lease.stop)
    talk.tick()
    (request,) = talk.sent(shards[0], "snapshot")
    talk.say(shards[0], "snapshot_failed", id=request["id"], message="disk full")
    assert talk.lease(alice)


def test_without_a_bound_there_is_none():
    talk = talk_with()
    _, (alice, bob) = talk.all_join()
    assert talk.lease(alice)
    assert talk.lease(bob)
    talk.tick()
    assert not talk.out


def test_a_metric_needs_its_bound():
    with pytest.raises(ValidationError, match="give both, or neither"):
        WarmStartConfig(metric="top1_error")


MINIBATCHES = sum(-(-size // 4) for size in UNIT_SIZES)


def long(**changed) -> DownpourConfig:
    fields = {"minibatch_size": 4, "num_epochs": 20, "validate_every_epochs": 99.0}
    return DownpourConfig(**fields | changed)


@pytest.fixture
def hasty(monkeypatch):
    """Reports and decisions ten times as often as in real runs: less to wait for."""
    monkeypatch.setattr("engine.replica_role._REPORT_S", 0.05)
    monkeypatch.setattr("engine.training._TICK_S", 0.02)


def test_what_is_kept_is_the_work_of_one_replica_alone(tmp_path, hasty):
    settings, heard = long(warm_start={"steps": MINIBATCHES}), Listener()
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        run.drive()
    (over,) = heard.of("warm_start_over")
    kept = checkpoint.read(tmp_path / FOLDER)
    assert kept.num_counted == over["samples"] >= NUM_SAMPLES
    before = heard[: heard.index(over)]
    assert len({row["replica"] for row in before if row["event"] == "progress"}) == 1
    assert len({row["replica"] for row in heard.of("progress")}) == 2
    assert kept.read_parameters().shape == (83,)


def test_a_resumed_run_does_not_start_warm_again(tmp_path, hasty):
    settings = long(warm_start={"steps": 30}, checkpoint_every_s=0.1)

    def released(row) -> None:
        if heard.of("warm_start_over"):
            stop(row)

    heard = Meddler(When("checkpoint", None, released))
    with threaded_run(tmp_path, settings, heard) as run:
        run.start_all()
        with pytest.raises(StoppedByTestError):
            run.drive()
    again = Listener()
    with threaded_run(tmp_path, settings, again) as run:
        assert run.training._coordinator._warm_start.over
        run.start_all()
        run.drive()
    assert not again.of("warm_start_over")


def trained(folder, rule: RuleConfig) -> checkpoint.Checkpoint:
    """The final checkpoint of a run of one shard."""
    train_single(classifier, SingleConfig(minibatch_size=8, num_epochs=2, rule=rule), folder, {})
    return checkpoint.read(max((folder / "checkpoints").glob("0*[0-9]")))


def begun(folder, rule: RuleConfig, source, num_shards: int) -> checkpoint.Checkpoint:
    problem = classifier()
    identity = full_identity({}, problem, num_shards, "downpour")
    slices = problem.layout.slices(num_shards)
    return resume_or_begin(folder, identity, problem, rule, slices, source)


@pytest.mark.parametrize("rule", [SgdConfig(), AdagradConfig(), AdamWConfig()], ids=rule_name)
@pytest.mark.parametrize("num_shards", [1, 3])
def test_another_run_begins_where_the_kept_one_was_with_any_number_of_shards(
    tmp_path, rule, num_shards
):
    source = trained(tmp_path / "first", rule)
    start = begun(tmp_path / "second", rule, source.folder, num_shards)
    assert (start.num_counted, start.num_steps) == (0, 0)
    for name, vector in source.read_shard(0).items():
        parts = [start.read_shard(shard)[name] for shard in range(num_shards)]
        assert torch.equal(torch.cat(parts), vector)
    assert {shard.version for shard in start.shards} == {source.num_steps}


def test_another_rule_takes_the_parameters_and_begins_its_own_state(tmp_path):
    source = trained(tmp_path / "first", SgdConfig())
    start = begun(tmp_path / "second", AdagradConfig(), source.folder, 2)
    assert torch.equal(start.read_parameters(), source.read_parameters())
    assert not start.read_shard(1)["squares"].any()
    assert {shard.version for shard in start.shards} == {0}


def test_a_baseline_that_begins_there_goes_on_with_the_state_of_its_rule(tmp_path):
    whole = trained(tmp_path / "whole", AdamWConfig())
    one = SingleConfig(minibatch_size=8, num_epochs=1, rule=AdamWConfig())
    train_single(classifier, one, tmp_path / "a", {})
    (first,) = (tmp_path / "a/checkpoints").glob("000001")
    problem = classifier()  # its second epoch, in the order of the first: only the state matters
    more = SingleConfig(**{**vars(one), "start_from": first})
    result = train_single(lambda: problem, more, tmp_path / "b", {})
    newest = checkpoint.read(max((tmp_path / "b/checkpoints").glob("0*[0-9]")))
    assert newest.shards[0].version == whole.shards[0].version == 2 * result.num_steps


def test_parameters_of_another_network_are_refused(tmp_path):
    source = trained(tmp_path / "first", SgdConfig())
    problem = classifier()
    identity = full_identity({}, problem, 1, "downpour") | {"parameters": "9 in layout x"}
    with pytest.raises(CheckpointMismatchError, match="made with another network"):
        resume_or_begin(
            tmp_path / "b", identity, problem, SgdConfig(), [slice(0, 83)], source.folder
        )


def test_a_place_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere/checkpoint.json: no readable checkpoint"):
        begun(tmp_path / "b", SgdConfig(), tmp_path / "nowhere", 1)
