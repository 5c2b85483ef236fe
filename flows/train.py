"""Train a network, staging its data first where needed: `python -m flows.train`."""

from conf.cli import preflight
from flows.prerequisites import look

preflight(__name__, look)

from pathlib import Path

from prefect import flow

from flows.command import command
from flows.run import dated_if_scheduled, open_run, run_name
from flows.staged import staged
from tasks.training import train_network


@flow(name="train", flow_run_name=run_name)
def train(config_name: str = "config", overrides: list[str] = []) -> Path:  # noqa: B006
    """Train by the chosen algorithm, or go on where an earlier call was stopped."""
    run = open_run(config_name, dated_if_scheduled(config_name, overrides))
    config, (data,) = run.config, staged(run.config, [run.config.data])
    train_network(run.problem(data), config.algorithm, config.cluster, run.folder, run.made_from)
    return run.folder


if __name__ == "__main__":
    command(train)
