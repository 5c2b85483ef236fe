"""Lost processes are counted, and a run that gives up says how each of them ended."""

import pytest

from engine.instructions import RunFailedError
from engine.losses import TELLING_S, Losses, in_words


def lost_all(losses: Losses) -> None:
    """Two replicas, each lost twice."""
    for pid, index in ((11, 0), (12, 1), (13, 0), (14, 1)):
        losses.of_use("replica", index)
        losses.lost("replica", index, pid, f"tcp://{index}", "connection closed")


def test_the_summary_names_how_every_process_ended():
    losses = Losses(max_restarts=1)
    for pid, code in ((11, -9), (12, 1), (13, -15), (14, 0)):
        losses.ended(pid, code)
    lost_all(losses)
    with pytest.raises(RunFailedError) as raised:
        losses.check(now=0.0)
    assert str(raised.value).splitlines() == [
        "replica 0 was lost 2 times, cluster.max_restarts=1; the last time: connection closed",
        "  replica 0: process 11 was killed by signal 9 (SIGKILL); "
        "process 13 was killed by signal 15 (SIGTERM)",
        "  replica 1: process 12 ended with exit code 1; process 14 ended with exit code 0",
    ]


def test_the_word_of_a_parent_is_waited_for_but_not_for_ever():
    losses = Losses(max_restarts=1)
    lost_all(losses)
    losses.check(now=5.0)
    losses.ended(14, -9)
    losses.check(now=5.0 + TELLING_S)
    match = r"process 12 was lost \(connection closed\); process 14 was killed by signal 9"
    with pytest.raises(RunFailedError, match=match):
        losses.check(now=5.1 + TELLING_S)


def test_who_is_lost_later_is_not_waited_for():
    losses = Losses(max_restarts=1)
    lost_all(losses)
    losses.check(now=5.0)
    for pid in (11, 12, 13):
        losses.ended(pid, -9)
    losses.lost("replica", 0, 15, "tcp://0", "connection closed")
    with pytest.raises(RunFailedError, match=r"process 15 was lost \(connection closed\)"):
        losses.check(now=5.1)


def test_as_many_losses_as_allowed_are_no_failure():
    losses = Losses(max_restarts=2)
    lost_all(losses)
    losses.check(now=0.0)
    losses.check(now=99.0)


def test_signals_have_names_where_they_have_one():
    assert in_words(-11) == "was killed by signal 11 (SIGSEGV)"
    assert in_words(-99) == "was killed by signal 99"
    assert in_words(3) == "ended with exit code 3"


def test_a_kill_for_want_of_memory_is_called_so_and_another_end_is_not():
    cause = "was killed by signal 9 (SIGKILL), cgroup oom_kill=2: out of memory"
    assert in_words(-9, oom_kills=2) == cause
    assert in_words(-15, oom_kills=2) == "was killed by signal 15 (SIGTERM)"
    assert in_words(1, oom_kills=2) == "ended with exit code 1"
