"""A flow that is told to stop: it leaves a checkpoint, takes its processes along, says so."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flows.conftest import tiny

pytestmark = pytest.mark.flow
ROOT = Path(__file__).resolve().parents[2]
NEVER_ENDING = ("algorithm.num_epochs=100000", "algorithm.validate_every_epochs=100000")


def rows(root: Path) -> list[dict[str, Any]]:
    """The event log of the only run below `root`."""
    return [
        json.loads(line)
        for log in root.glob("outputs/*/training/events.jsonl")
        for line in log.read_text().splitlines()
    ]


def wait_for(root: Path, event: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while event not in {row["event"] for row in rows(root)}:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the database of temporary servers, which takes seconds to make."""
    return tmp_path_factory.mktemp("prefect")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_flow_leaves_a_checkpoint_and_no_process(
    tmp_path: Path, prefect_home: Path, number: int, code: int
) -> None:
    command = [sys.executable, "-m", "flows.train", *tiny(tmp_path, *NEVER_ENDING)]
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, "PREFECT_HOME": str(prefect_home)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(tmp_path, "progress", process)
        started = psutil.Process(process.pid).children(recursive=True)
        # As a terminal's Ctrl-C and Prefect's worker do it: the whole process group gets it.
        os.killpg(process.pid, number)
        assert process.wait(60) == code
    finally:
        process.kill()
    assert psutil.wait_procs(started, timeout=10)[1] == []
    heard = rows(tmp_path)
    (checkpoint,) = (row for row in heard if row["event"] == "checkpoint")
    first_progress = next(row for row in heard if row["event"] == "progress")
    assert checkpoint["samples"] >= first_progress["samples"] > 0
    assert (Path(checkpoint["path"]) / "checkpoint.json").exists()
