"""The Prefect task that evaluates a trained network."""

from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from data.manifest import read_manifest
from engine.config import Device
from engine.device import computing_device
from evaluation.config import EvaluationConfig
from evaluation.evaluate import evaluate
from models.config import ModelConfig
from tasks.artifacts import show_table
from tasks.network import load_network
from tasks.records import file_digest, matching_record, settings_of, write_record
from tasks.report.tables import Results, evaluation_rows
from tasks.retries import may_pass

EVALUATION = "evaluation.json"


@task(
    task_run_name="evaluate-{weights.parent.name}",
    retries=1,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def evaluate_network(
    weights: Path, model: ModelConfig, staged: Path, config: EvaluationConfig, device: Device
) -> Path:
    """Test the network on the staged test images, unless evaluation.json has the results."""
    file, run = weights.with_name(EVALUATION), weights.parent.name
    made_from = {"weights": file_digest(weights), "data": staged.name, **settings_of(config)}
    results: Results | None = matching_record(file, made_from)
    if results is None:
        network, _ = load_network(weights, model, read_manifest(staged).class_names)
        results = evaluate(network.to(computing_device(device)), staged, config)
        write_record(file, made_from, results)
    for row in (rows := evaluation_rows(results)):
        get_run_logger().info("%s: %s", row["evaluation"], row["accuracy"])
    show_table(rows, f"Evaluation of {run}", "evaluation", run)
    return file
