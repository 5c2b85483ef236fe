"""The whole job, from archives to a report: `python -m flows.pipeline experiment=quick`."""

from conf.cli import preflight
from flows.prerequisites import look

preflight(__name__, look)

from pathlib import Path

from prefect import flow, tags

from flows.command import command
from flows.evaluate import evaluate
from flows.report import report
from flows.run import dated_if_scheduled, open_run, run_name
from flows.stage import stage
from flows.train import train
from flows.transfer import transfer


@flow(name="pipeline", flow_run_name=run_name)
def pipeline(config_name: str = "config", overrides: list[str] = []) -> Path:  # noqa: B006
    """Stage, train, evaluate, transfer, report; each a subflow that skips what is done."""
    overrides = dated_if_scheduled(config_name, overrides)
    folder = open_run(config_name, overrides).folder
    with tags(folder.name):
        stage(config_name, overrides)
        train(config_name, overrides)
        evaluate(config_name, overrides)
        transfer(config_name, overrides)
        report(config_name, overrides)
    return folder


if __name__ == "__main__":
    command(pipeline)
