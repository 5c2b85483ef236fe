"""A flow that is killed, and goes on with another number of parameter shards."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from engine import checkpoint
from engine.identity import CheckpointMismatchError
from flows.train import train
from tests.engine.rows import Row, in_file
from tests.flows.conftest import tiny
from tests.kills import was_killed

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]
ROOT = Path(__file__).resolve().parents[2]
NUM_EPOCHS = 40
NUM_SAMPLES = NUM_EPOCHS * 300


def overrides(root: Path, *more: str) -> list[str]:
    return tiny(root, "paths.run_name=mine", f"algorithm.num_epochs={NUM_EPOCHS}", *more)


def told(folder: Path) -> list[Row]:
    return in_file(folder) if (folder / "events.jsonl").exists() else []


def killed_in_training(root: Path, folder: Path) -> int:
    """Kill a run's process when it has told of progress; return how many samples that was."""
    command = [sys.executable, "-m", "flows.train", *overrides(root)]
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    prefect = {"PREFECT_HOME": str(root / "prefect"), "PREFECT_API_URL": PREFECT_API_URL.value()}
    flow = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, **prefect},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline, progress = time.monotonic() + 120, []
    while not progress:
        assert flow.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
        progress = [row for row in told(folder) if row["event"] == "progress"]
    children = psutil.Process(flow.pid).children(recursive=True)
    os.kill(flow.pid, signal.SIGKILL)
    was_killed("flow", flow.wait(30))
    assert psutil.wait_procs(children, timeout=30)[1] == []
    return int(max(row["samples"] for row in progress))


def test_a_killed_flow_goes_on_with_another_number_of_shards(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "mine" / "training"
    acknowledged = killed_in_training(tmp_path, folder)
    more = overrides(tmp_path, "cluster.num_shards=3")
    with pytest.raises(CheckpointMismatchError) as refused:
        train(overrides=more)
    assert "  shards: checkpoint 2, this run 3" in str(refused.value)
    assert "cluster.allow_resharding=true" in str(refused.value)

    train(overrides=[*more, "cluster.allow_resharding=true"])
    start = [row for row in in_file(folder) if row["event"] == "start"][-1]
    assert start["shards"] == 3
    assert NUM_SAMPLES > start["resumed_at_samples"] >= acknowledged
    end = checkpoint.read(max((folder / "checkpoints").glob("0*[0-9]")))
    assert end.final
    assert len(end.shards) == 3
    assert end.num_counted == NUM_SAMPLES
    assert (folder.parent / "weights.safetensors").exists()
