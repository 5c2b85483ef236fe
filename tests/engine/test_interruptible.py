"""Signals end the waiting for a training, never the training in the middle of something."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from engine import interruptible as module
from engine.config import SingleConfig
from engine.interruptible import interruptible
from engine.single import train_single
from tests.engine.problems import NUM_SAMPLES, classifier
from tests.engine.rows import Meddler, When
from tests.engine.threaded import latest


class SignalledError(BaseException):
    """What the handler raises, as Prefect's does for a cancelled run."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    def act(number: int, _: FrameType | None) -> None:
        raise SignalledError

    before = signal.signal(signal.SIGUSR1, act)
    yield
    signal.signal(signal.SIGUSR1, before)


def signal_ourselves() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def test_work_returns_its_result_or_raises_its_error() -> None:
    assert interruptible(lambda: 7, pytest.fail) == 7
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0, pytest.fail)


def test_an_interrupted_work_is_asked_to_stop_and_ends_by_itself() -> None:
    asked, ended = threading.Event(), []

    def work() -> None:
        signal_ourselves()
        assert asked.wait(10)
        time.sleep(0.05)  # the last checkpoint
        ended.append(True)

    with pytest.raises(SignalledError):
        interruptible(work, asked.set)
    assert ended == [True]


def test_a_second_signal_ends_the_wait_at_once() -> None:
    asked, release = threading.Event(), threading.Event()

    def work() -> None:
        signal_ourselves()
        assert asked.wait(10)
        signal_ourselves()
        release.wait(10)

    with pytest.raises(SignalledError):
        interruptible(work, asked.set)
    assert not release.is_set()
    release.set()


def test_work_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_CHECKPOINT_S", 0.05)
    release = threading.Event()

    def work() -> None:
        signal_ourselves()
        release.wait(10)

    with pytest.raises(SignalledError):
        interruptible(work, lambda: None)
    release.set()


def test_an_interrupted_baseline_leaves_a_checkpoint_of_every_step_it_made(tmp_path) -> None:
    config = SingleConfig(minibatch_size=8, num_epochs=500, validate_every_epochs=999)
    heard = Meddler(When("progress", 2, lambda row: signal_ourselves()))
    with pytest.raises(SignalledError):
        train_single(classifier, config, tmp_path, {}, heard)
    left = latest(tmp_path)
    assert heard[-1]["event"] == "checkpoint"
    assert heard.of("progress")[1]["samples"] <= left.num_counted < 500 * NUM_SAMPLES
    assert left.shards[0].version == left.num_steps > 0
