"""The report of a run, from the files that its stages left."""

import json
from pathlib import Path

import pytest

from tasks.records import write_record
from tasks.report.build import build_report
from tasks.report.history import history_of
from tasks.report.mermaid import chart
from tasks.report.plots import smooth
from tasks.report.summary import dotted, training_figures
from tasks.report.tables import markdown_table
from tests.tasks import rows

EVALUATION = {
    "single_scale": {"top1_error": 0.25, "top5_error": 0.125, "num_images": 40, "seconds": 1.5},
    "multi_crop": {"top1_error": 0.2, "top5_error": 0.1, "num_images": 40, "seconds": 9.0},
}
TRANSFER = {
    "digits": {
        "accuracy": 0.95,
        "untrained_accuracy": 0.75,
        "pixels_accuracy": 0.9,
        "num_train": 100,
        "num_test": 20,
        "num_classes": 10,
        "dimensions": 96,
    }
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows.write_log(tmp_path / "training" / "events.jsonl", rows.eventful_run())
    (tmp_path / "config.yaml").write_text("experiment: quick\n")
    write_record(tmp_path / "evaluation.json", {}, EVALUATION)
    write_record(tmp_path / "transfer.json", {}, TRANSFER)
    return tmp_path


def report_of(folder: Path) -> str:
    return build_report(folder, folder / "not-staged", ["experiment=quick"]).read_text()


def test_the_report_has_plots_tables_incidents_and_configuration(folder: Path) -> None:
    text = report_of(folder)
    for part in (
        "Best accuracy on the test images: **80.0 %** (multi crop)",
        "| digits | 95.0 % | 75.0 % | 90.0 % | 100 / 20 | 10 | 96 |",
        "![Loss and validation accuracy](plots/learning.png)",
        "![Staleness of pushes](plots/staleness.png)",
        "Parameter shard 0 was lost: connection ended.",
        "experiment: quick",
        "`python -m flows.pipeline experiment=quick`",
    ):
        assert part in text


def test_every_plot_of_the_report_is_a_picture_beside_it(folder: Path) -> None:
    report_of(folder)
    for name in ("learning", "throughput", "staleness"):
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_has_every_figure_by_its_dotted_name(folder: Path) -> None:
    report_of(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["evaluation.multi_crop.top1_error"] == 0.2
    assert summary["transfer.digits.untrained_accuracy"] == 0.75
    assert summary["training.incidents"] == 6
    assert summary["training.num_samples"] == 1000
    assert summary["training.validation.top1_error"] == 0.25


def test_a_report_made_again_touches_no_file(folder: Path) -> None:
    report_of(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    report_of(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_that_was_only_configured_has_a_report_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("experiment: quick\n")
    text = report_of(tmp_path)
    assert "## Configuration" in text
    assert "## Training" not in text


def test_a_run_without_incidents_says_so(folder: Path) -> None:
    log = [rows.start(), rows.progress(1, 10), rows.event("finished", 2, samples=10, elapsed_s=2)]
    rows.write_log(folder / "training" / "events.jsonl", log)
    assert "None: no process was lost" in report_of(folder)


def test_staleness_in_the_summary_is_that_of_all_pushes() -> None:
    history = history_of([rows.start(), rows.progress(1, 10), rows.progress(2, 20, replica=1)])
    figures = training_figures(history)
    assert figures["staleness"] == {"num_pushes": 8, "mean": 0.5, "max": 2}
    assert figures["staleness_at_shard"]["1"] == {"num_pushes": 2, "mean": 0.0, "max": 0}


def test_nested_figures_flatten_to_dotted_names() -> None:
    assert dotted({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_a_smoothed_curve_averages_the_last_points_only() -> None:
    points = history_of([rows.progress(t, t, loss=float(t)) for t in range(1, 5)]).loss
    assert [point.value for point in smooth(points, width=2)] == [1.0, 1.5, 2.5, 3.5]


def test_a_markdown_table_has_the_columns_of_its_first_row() -> None:
    table = markdown_table([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x |", "| 2 | y |"]


def test_a_chart_is_thinned_to_means_over_equal_stretches_of_samples() -> None:
    points = history_of([rows.progress(t, t, loss=float(t % 2)) for t in range(1, 401)]).loss
    text = chart("loss", "loss", points, max_points=4)
    assert "line [0.5051, 0.5, 0.5, 0.495]" in text


def test_there_is_no_chart_before_there_is_anything_to_draw() -> None:
    nothing_yet = history_of([rows.progress(1, 0), rows.progress(2, 10, loss=float("nan"))]).loss
    assert chart("loss", "loss", nothing_yet) == ""
    assert chart("loss", "loss", []) == ""
