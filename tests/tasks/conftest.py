"""A staged data set, and one torch thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data.config import DataConfig, StagingConfig
from data.staging import stage


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def staged_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits, 8x8: 120 to train in two tars, 40 to test."""
    staging = StagingConfig(samples_per_tar=60, max_train_samples=120, max_test_samples=40)
    config = DataConfig(name="digits", source="builtin", staging=staging)
    return stage(config, tmp_path_factory.mktemp("staged")).folder
