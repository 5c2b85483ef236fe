"""A deterministic run that is killed whole, again and again, ends at the same bits."""

import subprocess
import sys
from pathlib import Path

import torch

from tests.engine import deterministic
from tests.engine.problems import NUM_SAMPLES
from tests.engine.rows import in_file
from tests.engine.threaded import latest


def test_twenty_kills_of_everything_change_no_bit_of_the_final_weights(tmp_path):
    command = [sys.executable, "-m", "tests.engine.deterministic", str(tmp_path / "killed"), "1"]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=120)
    whole = deterministic.live(tmp_path / "whole")
    assert whole is not None

    starts = [row for row in in_file(tmp_path / "killed") if row["event"] == "start"]
    assert len(starts) == deterministic.NUM_KILLS + 1
    resumed_at = [row["resumed_at_samples"] for row in starts]
    assert resumed_at == sorted(resumed_at)
    assert resumed_at[-1] < deterministic.CONFIG.num_epochs * NUM_SAMPLES  # all of them mattered
    assert len(set(resumed_at)) > 5  # and not at the same point
    assert any(samples % NUM_SAMPLES for samples in resumed_at)  # in the middle of an epoch
    assert torch.equal(latest(tmp_path / "killed").read_parameters(), whole.read_parameters())
