"""The staged data that a flow needs: looked up, and made where it is missing."""

from collections.abc import Sequence
from pathlib import Path

from conf.schema import RunConfig
from data.config import DataConfig
from data.staging import staged_folder
from tasks.cluster import workers_on_demand
from tasks.staging import is_staged, stage_dataset


def staged(config: RunConfig, datasets: Sequence[DataConfig]) -> list[Path]:
    """The folder of each data set, staged now unless it has been before."""
    root = config.paths.staged
    with workers_on_demand(config.cluster) as run_parallel:
        for data in datasets:
            if not is_staged(data, root):
                stage_dataset(data, root, run_parallel)
    return [staged_folder(root, data) for data in datasets]
