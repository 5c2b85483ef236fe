"""Use a trained network on other data sets: `python -m flows.transfer`."""

from conf.cli import preflight
from flows.prerequisites import look

preflight(__name__, look)

from pathlib import Path

from prefect import flow

from flows.command import command
from flows.run import open_run, run_name
from flows.staged import staged
from tasks.transfer import transfer_features


@flow(name="transfer", flow_run_name=run_name)
def transfer(config_name: str = "config", overrides: list[str] = []) -> Path:  # noqa: B006
    """Classify other data by the network's features, beside two baselines: transfer.json."""
    run = open_run(config_name, overrides)
    weights = run.weights()
    data = staged(run.config, run.transfer_data)
    folders = dict(zip(run.config.transfer.datasets, data, strict=True))
    transfer_features(
        weights, run.config.model, folders, run.config.transfer, run.config.cluster.device
    )
    return run.folder


if __name__ == "__main__":
    command(transfer)
