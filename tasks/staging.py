"""The Prefect task that stages one data set."""

from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from data.config import DataConfig
from data.manifest import MANIFEST
from data.staging import stage, staged_folder
from tasks.artifacts import show_table
from tasks.cluster import ParallelMap
from tasks.report.tables import manifest_rows
from tasks.retries import may_pass


@task(
    task_run_name="stage-{data.name}",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def stage_dataset(data: DataConfig, root: Path, run_parallel: ParallelMap[Any, Any]) -> Path:
    """Make the tars and manifest of `data` under `root`, unless they are there; return the folder.

    Tars that an interrupted call had finished are kept.
    """
    result = stage(data, root, run_parallel)
    manifest = result.manifest
    get_run_logger().info(
        "%s: %d training and %d test images in %d classes; %d tars written, %d kept in %s",
        data.name,
        sum(entry.num_samples for entry in manifest.train),
        sum(entry.num_samples for entry in manifest.test),
        len(manifest.class_names),
        result.tars_written,
        result.tars_kept,
        result.folder,
    )
    show_table(manifest_rows(manifest), f"Staged tars of {data.name}", "manifest", data.name)
    return result.folder


def is_staged(data: DataConfig, root: Path) -> bool:
    """True when staging of `data` has finished before."""
    return (staged_folder(root, data) / MANIFEST).exists()
