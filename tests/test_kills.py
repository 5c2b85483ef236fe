"""How many processes of which role all tests together have killed; it comes last."""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tests.kills import MIN_KILLS, ROLES, real_kill, tally, told, was_killed

IDLE = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


@pytest.fixture
def idle():
    with subprocess.Popen(IDLE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        yield process
        process.kill()


def counted_since(before: Counter[str]) -> int:
    return (tally() - before).total()


def test_a_kill_counts_when_the_process_is_dead(idle):
    before = tally()
    real_kill(idle.pid, "staging")
    assert idle.wait() == -signal.SIGKILL
    assert counted_since(before) == 1


def test_a_process_that_has_ended_by_itself_was_not_killed(idle):
    before = tally()
    idle.terminate()
    os.waitid(os.P_PID, idle.pid, os.WEXITED | os.WNOWAIT)  # dead, and there to be seen
    with pytest.raises(AssertionError, match="had ended before"):
        real_kill(idle.pid, "staging")
    with pytest.raises(AssertionError, match="ended with -15"):
        was_killed("staging", idle.wait())
    with pytest.raises(ProcessLookupError):
        real_kill(idle.pid, "staging")
    assert counted_since(before) == 0


def test_all_tests_together_kill_every_role_and_at_least_25_processes():
    counts = tally()
    assert counts.total() >= MIN_KILLS, told(counts)
    assert [role for role in ROLES if not counts[role]] == [], told(counts)
