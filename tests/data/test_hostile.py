"""The hostile corpus: all of it is refused or decoded by the stated rule, in bounded memory.

`python -m tests.data.hostile FOLDER` shows the time of each case too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.hostile.cases import cases

ROOT = Path(__file__).parent.parent.parent
MAX_MB = 256


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """In a fresh process: here, what other tests have imported would count as memory."""
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.hostile", folder],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("case", tuple(cases()), ids=lambda case: case.name)
def test_it_is_refused_or_decoded_by_the_stated_rule(results, case):
    result = results[case.name]
    for part in case.outcome:
        assert part in result["outcome"]
    assert result["peak_mb"] <= MAX_MB
