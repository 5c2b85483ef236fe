"""The whole job on a few images: real server, real workers."""

import json
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from flows.evaluate import evaluate
from flows.pipeline import pipeline
from flows.report import report
from flows.train import train
from tests.flows.conftest import FinishedRun, tiny

pytestmark = pytest.mark.flow


def files_below(root: Path) -> dict[Path, int]:
    """Each file with its time of change, without lock files, which every reader touches."""
    files = (path for path in root.rglob("*") if path.is_file() and "lock" not in path.name)
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_pipeline_leaves_all_files_of_a_run(finished: FinishedRun) -> None:
    for name in (
        "config.yaml",
        "training/events.jsonl",
        "weights.safetensors",
        "evaluation.json",
        "transfer.json",
        "summary.json",
        "report.md",
        "plots/learning.png",
        "plots/throughput.png",
        "plots/staleness.png",
        "plots/first_tar.png",
    ):
        assert (finished.folder / name).stat().st_size > 0


def test_the_summary_of_a_pipeline_has_the_figures_of_every_stage(finished: FinishedRun) -> None:
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert summary["data.num_train"] == 300
    assert summary["training.complete"] is True
    assert summary["training.num_samples"] == 300
    assert summary["evaluation.multi_crop_and_dense.num_images"] == 60
    for name in (
        "evaluation.multi_scale.top1_error",
        "transfer.digits.accuracy",
        "transfer.digits.untrained_accuracy",
        "transfer.digits.pixels_accuracy",
    ):
        assert 0 <= summary[name] <= 1


def test_every_stage_leaves_its_artifacts(finished: FinishedRun) -> None:
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/artifacts/filter", json={})
    keys = {artifact["key"] for artifact in answer.json()}
    run = finished.folder.name
    assert {
        f"configuration-{run}",
        "manifest-fashion-mnist",
        "manifest-digits",
        f"progress-{run}",
        f"curves-{run}",
        f"evaluation-{run}",
        f"transfer-{run}",
        f"report-{run}",
    } <= keys


def test_stages_are_flow_runs_of_their_own_tagged_with_the_run(finished: FinishedRun) -> None:
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    tagged = [run for run in runs if finished.folder.name in run.tags]
    names = {run.name.split()[0] for run in tagged}
    assert names == {"stage", "train", "evaluate", "transfer", "report"}


def test_the_same_pipeline_again_changes_no_file(finished: FinishedRun) -> None:
    before = files_below(finished.root)
    assert pipeline(overrides=finished.overrides) == finished.folder
    assert files_below(finished.root) == before


def test_a_changed_evaluation_alone_is_evaluated_again_without_training(
    finished: FinishedRun,
) -> None:
    weights = (finished.folder / "weights.safetensors").stat().st_mtime_ns
    record = (finished.folder / "evaluation.json").read_bytes()
    name = f"paths.run_name={finished.folder.name}"
    evaluate(overrides=[*finished.overrides, name, "evaluation.multi_sides=[32,34]"])
    assert (finished.folder / "evaluation.json").read_bytes() != record
    assert (finished.folder / "weights.safetensors").stat().st_mtime_ns == weights


@pytest.mark.parametrize("algorithm", ["single", "synchronous"])
def test_a_baseline_trains_by_the_same_command(finished: FinishedRun, algorithm: str) -> None:
    overrides = tiny(finished.root, f"algorithm={algorithm}")
    folder = train(overrides=overrides)
    report(overrides=overrides)
    assert json.loads((folder / "summary.json").read_text())["training.num_samples"] == 300
