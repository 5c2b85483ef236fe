"""A deterministic run that changes its number of shards at every kill ends at the same bits."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine import resharded
from tests.engine.problems import NUM_SAMPLES, RULES, UNIT_SIZES, rule_name
from tests.engine.rows import Listener, in_file
from tests.engine.threaded import latest

NUM_UPDATES = resharded.CONFIG.num_epochs * sum(-(-size // 4) for size in UNIT_SIZES)


@pytest.fixture(scope="module")
def lived(tmp_path_factory) -> Path:
    """Runs by all rules, killed again and again; one folder each."""
    folder = tmp_path_factory.mktemp("lived")
    command = [sys.executable, "-m", "tests.engine.resharded", str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=300)
    return folder


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_no_change_of_shards_in_the_middle_of_an_epoch_changes_a_bit(lived, tmp_path, rule):
    pairs = set(itertools.pairwise(resharded.NUMBERS))
    assert len(pairs) == 25
    whole = resharded.live(tmp_path, resharded.settings(rule), 2, Listener())
    same_run(lived / rule_name(rule), whole.read_parameters(), resharded.NUMBERS)


def test_nor_does_one_of_which_only_the_old_shards_logs_know(lived, tmp_path):
    rule = RULES[-1]
    whole = resharded.live(tmp_path, resharded.settings(rule), 2, Listener())
    same_run(lived / "power", whole.read_parameters(), resharded.FEW_NUMBERS)


def same_run(folder: Path, parameters: torch.Tensor, numbers: tuple[int, ...]) -> None:
    """Compare a run with one that was left alone."""
    starts = [row for row in in_file(folder) if row["event"] == "start"]
    assert [row["shards"] for row in starts] == list(numbers)
    resumed_at = [row["resumed_at_samples"] for row in starts]
    assert all(later > earlier for earlier, later in itertools.pairwise(resumed_at))
    assert all(samples % NUM_SAMPLES for samples in resumed_at[1:])
    end = latest(folder)
    assert end.final
    assert end.num_counted == resharded.CONFIG.num_epochs * NUM_SAMPLES
    assert end.num_steps == NUM_UPDATES
    assert [shard.version for shard in end.shards] == [NUM_UPDATES] * numbers[-1]
    assert torch.equal(end.read_parameters(), parameters)
