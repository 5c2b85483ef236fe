"""Test a trained network on the test images: `python -m flows.evaluate`."""

from conf.cli import preflight
from flows.prerequisites import look

preflight(__name__, look)

from pathlib import Path

from prefect import flow

from flows.command import command
from flows.run import open_run, run_name
from flows.staged import staged
from tasks.evaluation import evaluate_network


@flow(name="evaluate", flow_run_name=run_name)
def evaluate(config_name: str = "config", overrides: list[str] = []) -> Path:  # noqa: B006
    """Single scale, several scales, many crops: top-1 and top-5 errors in evaluation.json."""
    run = open_run(config_name, overrides)
    weights = run.weights()
    (data,) = staged(run.config, [run.config.data])
    evaluate_network(
        weights, run.config.model, data, run.config.evaluation, run.config.cluster.device
    )
    return run.folder


if __name__ == "__main__":
    command(evaluate)
