"""The baseline: one plain torch loop, with checkpoints that it resumes from to the same bits."""

import itertools
import math
import threading
import time
from pathlib import Path

import pytest
import torch

from engine import checkpoint, single
from engine.config import DownpourConfig, MomentumConfig, SingleConfig
from engine.identity import CheckpointMismatchError
from engine.inprocess import train_in_process
from engine.instructions import RunFailedError
from engine.ledger import Ledger
from engine.single import train_single
from engine.torch_problem import TorchProblem
from tests.engine.problems import (
    NUM_SAMPLES,
    RULES,
    UNIT_SIZES,
    classifier,
    forgetful,
    in_whole_registers,
    rule_name,
    use_nearest_roots,
)
from tests.engine.rows import Listener, Meddler, StoppedByTestError, When, in_file, stop

NUM_EPOCHS = 3
NUM_STEPS = NUM_EPOCHS * sum(-(-size // 8) for size in UNIT_SIZES)
IDENTITY = {"data": "points"}


def config(**changed) -> SingleConfig:
    return SingleConfig(**{"minibatch_size": 8, "num_epochs": NUM_EPOCHS, **changed})


def stopped_at(number: int) -> Meddler:
    """Ends the run when it hears of its n-th checkpoint."""
    return Meddler(When("checkpoint", number, stop))


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_it_ends_at_the_bits_of_one_downpour_replica(tmp_path, monkeypatch, rule):
    use_nearest_roots(monkeypatch)

    def factory() -> TorchProblem:
        return classifier(in_whole_registers())

    result = train_single(factory, config(rule=rule), tmp_path, IDENTITY)
    downpour = DownpourConfig(minibatch_size=8, num_epochs=NUM_EPOCHS, rule=rule)
    other = train_in_process(factory(), downpour, num_replicas=1, num_shards=2)
    assert torch.equal(result.parameters, other.parameters)
    assert (result.num_steps, result.num_samples) == (NUM_STEPS, NUM_EPOCHS * NUM_SAMPLES)


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("checkpoints", [1, 7, 20])
def test_it_resumes_from_any_checkpoint_to_the_same_bits(tmp_path, rule, checkpoints):
    settings = config(rule=rule, checkpoint_every_s=1e-9)  # after every step
    whole = train_single(classifier, config(rule=rule), tmp_path / "whole", IDENTITY)
    with pytest.raises(StoppedByTestError):
        train_single(classifier, settings, tmp_path, IDENTITY, stopped_at(checkpoints))
    heard = Listener()
    resumed = train_single(classifier, config(rule=rule), tmp_path, IDENTITY, heard)
    done = heard.of("start")[0]["resumed_at_samples"]
    assert done == checkpoint_samples(tmp_path, checkpoints)
    assert torch.equal(resumed.parameters, whole.parameters)
    assert (resumed.num_steps, resumed.num_samples) == (whole.num_steps, whole.num_samples)


def test_dropout_draws_the_same_masks_when_resumed(tmp_path):
    whole = train_single(forgetful, config(), tmp_path / "whole", IDENTITY)
    torch.rand(5)  # whatever else the process draws
    settings = config(checkpoint_every_s=1e-9)
    with pytest.raises(StoppedByTestError):
        train_single(forgetful, settings, tmp_path, IDENTITY, stopped_at(7))
    resumed = train_single(forgetful, config(), tmp_path, IDENTITY)
    assert torch.equal(resumed.parameters, whole.parameters)
    without = train_single(classifier, config(), tmp_path / "without", IDENTITY)
    assert not torch.allclose(without.parameters, whole.parameters, rtol=0.1)


def checkpoint_samples(folder: Path, number: int) -> int:
    """What the `number`-th checkpoint row of the event log says."""
    return [r["samples"] for r in in_file(folder) if r["event"] == "checkpoint"][number - 1]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train_single(classifier, config(), tmp_path, IDENTITY)
    heard = Listener()
    again = train_single(classifier, config(), tmp_path, IDENTITY, heard)
    assert (first.already_complete, again.already_complete) == (False, True)
    assert torch.equal(first.parameters, again.parameters)
    assert again.elapsed_s == first.elapsed_s
    assert heard == []


def test_a_folder_of_another_run_is_refused(tmp_path):
    train_single(classifier, config(num_epochs=1), tmp_path, IDENTITY)
    with pytest.raises(CheckpointMismatchError, match="data: checkpoint points, this run faces"):
        train_single(classifier, config(num_epochs=1), tmp_path, {"data": "faces"})


def test_every_row_is_heard_and_written(tmp_path):
    heard = Listener()
    train_single(classifier, config(validate_every_epochs=1.0), tmp_path, IDENTITY, heard)
    assert in_file(tmp_path) == heard
    assert [row["event"] for row in heard if row["event"] != "progress"] == [
        "start",
        *["checkpoint", "validation"] * 3,
        "finished",
    ]
    assert [row["samples"] for row in heard.of("validation")] == [
        NUM_SAMPLES * epoch for epoch in (1, 2, 3)
    ]
    assert [row["epoch"] for row in heard.of("validation")] == [1.0, 2.0, 3.0]
    times = [row["time_s"] for row in heard]
    assert times == sorted(times)


def test_time_goes_on_where_the_interrupted_run_ended(tmp_path):
    settings = config(checkpoint_every_s=1e-9)
    with pytest.raises(StoppedByTestError):
        train_single(classifier, settings, tmp_path, IDENTITY, stopped_at(10))
    elapsed = checkpoint.newest(
        tmp_path / "checkpoints", checkpoint.read(tmp_path / "checkpoints/000010").identity
    ).elapsed_s
    result = train_single(classifier, config(), tmp_path, IDENTITY)
    assert 0 < elapsed < result.elapsed_s
    assert in_file(tmp_path)[-1]["elapsed_s"] >= elapsed


def test_training_lowers_the_error(tmp_path):
    heard = Listener()
    settings = config(rule=MomentumConfig(learning_rate=0.1), num_epochs=10)
    train_single(classifier, settings, tmp_path, IDENTITY, heard)
    errors = [row["metrics"]["error"] for row in heard.of("validation")]
    assert errors[-1] < 0.1 < errors[0]


class JealousLedger(Ledger):
    """Fails when a thread enters while another one is inside."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.inside = threading.Lock()

    def _alone(self, method, *args):
        assert self.inside.acquire(blocking=False), "two threads in the ledger"
        try:
            time.sleep(0.0005)  # long enough for the other one to come
            return method(*args)
        finally:
            self.inside.release()

    def lease(self, holder):
        return self._alone(super().lease, holder)

    def count(self, holder, progress):
        return self._alone(super().count, holder, progress)

    def counted(self):
        return self._alone(super().counted)


def test_loader_and_trainer_take_turns_with_the_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(single, "Ledger", JealousLedger)
    settings = config(minibatch_size=1, num_epochs=1, prefetch=100, checkpoint_every_s=0.01)
    result = train_single(classifier, settings, tmp_path, IDENTITY)
    assert result.num_samples == NUM_SAMPLES


def test_a_problem_without_samples_is_refused_before_anything_is_written(tmp_path):
    problem = classifier()
    problem.unit_sizes = (0,)
    with pytest.raises(ValueError, match="no training sample"):
        train_single(lambda: problem, config(), tmp_path, IDENTITY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (classifier(), r"got a TorchProblem for the problem's factory: want a function"),
        (lambda: None, r"the factory gave None: want an engine.problem.Problem"),
    ],
)
def test_a_factory_that_is_none_is_refused(tmp_path, factory, message):
    with pytest.raises(TypeError, match=message):
        train_single(factory, config(), tmp_path, IDENTITY)


def poisoned(value: float) -> TorchProblem:
    """The classifier; from its tenth step on the gradient is NaN, and the loss is `value`."""
    problem, calls = classifier(), itertools.count()
    plain = problem.gradient_

    def gradient_(parameters, payload, grad):
        loss = plain(parameters, payload, grad)
        if next(calls) < 9:
            return loss
        grad.fill_(math.nan)
        return value

    problem.gradient_ = gradient_
    return problem


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (math.nan, r"step 9: the loss is nan: .*Lower the learning rate"),
        (1.0, r"step 10: 83 of 83 parameters are NaN or infinite: .*Lower the learning rate"),
    ],
)
def test_numbers_that_are_lost_end_the_run_and_reach_no_checkpoint(tmp_path, loss, message):
    with pytest.raises(RunFailedError, match=message):
        train_single(lambda: poisoned(loss), config(checkpoint_every_s=1e-9), tmp_path, IDENTITY)
    newest = checkpoint.read(max((tmp_path / "checkpoints").glob("[0-9]" * 6)))
    assert newest.num_steps == 9
    assert newest.read_parameters().isfinite().all()
