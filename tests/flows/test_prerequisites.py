"""A source that is not there is told by the command line itself: no server, no process."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def ended(folder: Path, flow: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"flows.{flow}", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("flow", ["pipeline", "stage", "train", "evaluate", "transfer"])
def test_a_missing_source_is_told_beside_other_errors_within_two_seconds(
    flow: str, tmp_path: Path
) -> None:
    overrides = ["data=folder", "data.path=nowhere", "algorithm.npush=4"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ended(tmp_path, flow, *overrides)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, because others may use it too while tests run.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert (command.returncode, command.stdout) == (2, "")
    first, source, key = command.stderr.splitlines()
    assert first == "2 configuration errors:"
    assert source.startswith(
        f"  1. override 'data.path=nowhere': data.path={tmp_path}/nowhere does not exist"
    )
    assert "unknown key 'algorithm.npush'" in key
    assert not list(tmp_path.iterdir())


def test_settings_are_shown_without_the_source(tmp_path: Path) -> None:
    shown = ended(tmp_path, "pipeline", "data=folder", "data.path=nowhere", "--cfg", "job")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "path: nowhere" in shown.stdout
