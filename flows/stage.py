"""Stage all data of a run: `python -m flows.stage experiment=quick`."""

from conf.cli import preflight

preflight(__name__)

from pathlib import Path

from prefect import flow

from flows.command import command
from flows.run import open_run, run_name
from tasks.cluster import workers_on_demand
from tasks.staging import stage_dataset


@flow(name="stage", flow_run_name=run_name)
def stage(config_name: str = "config", overrides: list[str] = []) -> Path:  # noqa: B006
    """Make tars of archives, those to train on and those to transfer to. What is there stays."""
    run = open_run(config_name, overrides)
    with workers_on_demand(run.config.cluster) as run_parallel:
        for data in (run.config.data, *run.transfer_data):
            stage_dataset(data, run.config.paths.staged, run_parallel)
    return run.folder


if __name__ == "__main__":
    command(stage)
