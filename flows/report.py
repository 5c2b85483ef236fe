"""Write the report of a run, finished or not: `python -m flows.report`."""

from conf.cli import preflight

preflight(__name__)

from pathlib import Path

from prefect import flow

from data.staging import staged_folder
from flows.command import command
from flows.run import open_run, run_name
from tasks.reporting import write_report


@flow(name="report", flow_run_name=run_name)
def report(config_name: str = "config", overrides: list[str] = []) -> Path:  # noqa: B006
    """Tables and plots in report.md, every figure by name in summary.json."""
    run = open_run(config_name, overrides)
    staged = staged_folder(run.config.paths.staged, run.config.data)
    write_report(run.folder, staged, list(run.overrides))
    return run.folder


if __name__ == "__main__":
    command(report)
