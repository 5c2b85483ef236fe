"""One Prefect server for all flow tests, and one tiny run for those that look at a finished one."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.pipeline import pipeline


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary server with a database of its own: 5 to 30 s to start."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


def tiny(root: Path, *more: str) -> list[str]:
    """Overrides of a run of seconds that writes below `root` only."""
    return [
        "experiment=quick",
        f"paths.staged={root}/staged",
        f"paths.outputs={root}/outputs",
        "data.staging.samples_per_tar=100",
        "data.staging.max_train_samples=300",
        "data.staging.max_test_samples=60",
        "model.width_factor=0.125",
        "model.head_widths=[32,32]",
        "algorithm.num_epochs=1",
        "evaluation.multi_sides=[32]",
        "evaluation.single_side=32",
        "evaluation.crops_per_side=1",
        "transfer.sides=[32]",
        "transfer.svm_costs=[1.0]",
        "cluster.start_timeout_s=120",
        *more,
    ]


class FinishedRun(NamedTuple):
    overrides: list[str]
    root: Path
    folder: Path


@pytest.fixture(scope="session")
def finished(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A whole pipeline, from nothing staged to the report."""
    root = tmp_path_factory.mktemp("run")
    overrides = tiny(root)
    return FinishedRun(overrides, root, pipeline(overrides=overrides))
