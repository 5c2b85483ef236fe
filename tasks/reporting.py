"""The Prefect task that writes the report."""

from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import show_report
from tasks.report.build import build_report
from tasks.retries import may_pass


@task(
    task_run_name="report-{folder.name}",
    retries=1,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def write_report(folder: Path, staged: Path, overrides: Sequence[str]) -> Path:
    """Write report.md, plots and summary.json from the files in the run's folder."""
    report = build_report(folder, staged, overrides)
    show_report(report, folder.name)
    get_run_logger().info("report: %s", report)
    return report
