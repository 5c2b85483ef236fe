"""A real process killed with SIGKILL at random moments while it applies pushes."""

import subprocess
import sys
from pathlib import Path

import torch

from engine.rules import make_rule
from engine.shard import ParameterShard
from tests.engine.kill_storm import NUM_KILLS, RULE, SIZE, gradient, open_state, replies
from tests.engine.shards import apply_


def test_twenty_kills_lose_no_acknowledged_push_and_apply_none_twice(tmp_path):
    command = [sys.executable, "-m", "tests.engine.kill_storm", str(tmp_path), "0"]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])

    answers = replies(tmp_path)
    sequences = [answer["sequence"] for answer in answers]
    assert sequences == list(range(1, len(answers) + 1))
    assert [answer["version"] for answer in answers] == sequences
    assert len({answer["epoch"] for answer in answers}) == NUM_KILLS + 1
    # A kill between two pushes would prove little: half of them hit one in the middle, so that
    # fewer than two do in one of 50,000 runs.
    assert sum(answer["duplicate"] for answer in answers) >= 2

    values, velocity = torch.zeros(SIZE), torch.zeros(SIZE)
    for sequence in sequences:
        apply_(make_rule(RULE), values, [velocity], gradient(sequence), step=sequence)
    shard = ParameterShard(open_state(tmp_path), make_rule(RULE), epoch=NUM_KILLS + 2)
    found, slots, version = shard.copy()
    assert version == len(answers)
    assert torch.equal(found, values)
    assert torch.equal(slots["velocity"], velocity)
