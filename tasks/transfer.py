"""The Prefect task that measures how well a trained network's features serve other data."""

from collections.abc import Mapping
from pathlib import Path

import torch
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from engine.config import Device
from engine.device import computing_device
from evaluation.config import TransferConfig
from evaluation.transfer import transfer
from models.config import ModelConfig
from tasks.artifacts import show_table
from tasks.network import load_network, untrained_network
from tasks.records import file_digest, matching_record, settings_of, write_record
from tasks.report.tables import Results, transfer_rows
from tasks.retries import may_pass

TRANSFER = "transfer.json"


@task(
    task_run_name="transfer-{weights.parent.name}",
    retries=1,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def transfer_features(
    weights: Path,
    model: ModelConfig,
    staged: Mapping[str, Path],
    config: TransferConfig,
    device: Device,
) -> Path:
    """Classify other data sets by the network's features, unless transfer.json has the results.

    Args:
        staged: folder of tars by name of data set.
    """
    file, run = weights.with_name(TRANSFER), weights.parent.name
    made_from = {"weights": file_digest(weights), **settings_of(config)}
    made_from |= {f"staged.{name}": folder.name for name, folder in staged.items()}
    results: Results | None = matching_record(file, made_from)
    if results is None:
        results = _results(weights, model, staged, config, computing_device(device))
        write_record(file, made_from, results)
    for row in (rows := transfer_rows(results)):
        get_run_logger().info(
            "%s: %s (untrained %s, pixels %s)",
            *(row[column] for column in ("data set", "accuracy", "untrained", "raw pixels")),
        )
    show_table(rows, f"Transfer of {run}", "transfer", run)
    return file


def _results(
    weights: Path,
    model: ModelConfig,
    staged: Mapping[str, Path],
    config: TransferConfig,
    device: torch.device,
) -> Results:
    network, description = load_network(weights, model)
    untrained = untrained_network(model, description).to(device)
    network = network.to(device)
    red, green, blue = description.mean_rgb
    return {
        name: transfer(network, untrained, folder, (red, green, blue), config)
        for name, folder in staged.items()
    }
