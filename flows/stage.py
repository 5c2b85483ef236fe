"""Stage all data of a run: `python -m flows.stage experiment=quick`.

python -m flows.stage --verify ...    read every tar and compare it with its manifest
python -m flows.stage --repair ...    the same, and write damaged tars again from the source
"""

from conf.cli import preflight, take_flag
from flows.prerequisites import look

FLAG = take_flag(__name__, "--verify", "--repair")
preflight(__name__, look)

from functools import partial
from pathlib import Path
from typing import Literal

from prefect import flow

from flows.command import command
from flows.run import open_run, run_name
from tasks.cluster import workers_on_demand
from tasks.staging import repair_dataset, stage_dataset, verify_dataset

Action = Literal["stage", "verify", "repair"]
ACTIONS: dict[str | None, Action] = {None: "stage", "--verify": "verify", "--repair": "repair"}


@flow(name="stage", flow_run_name=run_name)
def stage(
    config_name: str = "config",
    overrides: list[str] = [],  # noqa: B006
    action: Action = "stage",
) -> Path:
    """Make tars of archives, those to train on and those to transfer to. What is there stays."""
    run = open_run(config_name, overrides)
    root = run.config.paths.staged
    datasets = (run.config.data, *run.transfer_data)
    if action == "verify":
        # All of them, before the first one that is damaged ends it.
        states = [verify_dataset(data, root, return_state=True) for data in datasets]
        for state in states:
            state.result()
        return run.folder
    work = stage_dataset if action == "stage" else repair_dataset
    with workers_on_demand(run.config.cluster) as run_parallel:
        for data in datasets:
            work(data, root, run_parallel)
    return run.folder


if __name__ == "__main__":
    command(partial(stage, action=ACTIONS[FLAG]))
