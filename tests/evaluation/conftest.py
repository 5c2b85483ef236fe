"""One thread: small networks gain nothing from more. A staged data set to read from."""

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
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Staged handwritten digits, 8x8: 300 to train, 60 to test."""
    staging = StagingConfig(samples_per_tar=100, max_train_samples=300, max_test_samples=60)
    config = DataConfig(name="digits", source="builtin", staging=staging)
    return stage(config, tmp_path_factory.mktemp("staged")).folder
