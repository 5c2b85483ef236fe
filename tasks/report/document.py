"""The report of a run as one Markdown document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.report.history import TrainingHistory
from tasks.report.summary import Figures, dotted, training_figures
from tasks.report.tables import (
    Results,
    Row,
    evaluation_rows,
    incident_rows,
    iteration_rows,
    markdown_table,
    percent,
    replica_rows,
    transfer_rows,
)


@dataclass(frozen=True, kw_only=True)
class ReportParts:
    """All that a report is written from. What a run has not got (yet) is empty or None."""

    run_name: str
    config_yaml: str
    command: str
    data: Figures
    history: TrainingHistory | None = None
    evaluation: Results = field(default_factory=dict)
    transfer: Results = field(default_factory=dict)
    machine: Figures = field(default_factory=dict)
    plots: Mapping[str, Path] = field(default_factory=dict)
    contact_sheet: Path | None = None
    data_tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)  # by title


def report_document(parts: ReportParts) -> str:
    """The whole report, in GitHub's Markdown; plots are linked by their names beside it."""
    sections = [
        (f"# Run {parts.run_name}", _headline(parts)),
        ("## Training", _training(parts)),
        ("## Incidents", _incidents(parts.history)),
        ("## Evaluation", _table(evaluation_rows(parts.evaluation))),
        ("## Transfer", _table(transfer_rows(parts.transfer))),
        ("## Data", _data(parts)),
        ("## Machine", _figures({"machine": parts.machine})),
        ("## Configuration", f"```yaml\n{parts.config_yaml.strip()}\n```"),
    ]
    return "\n\n".join(f"{title}\n\n{text}" for title, text in sections if text) + "\n"


def _headline(parts: ReportParts) -> str:
    lines = []
    if parts.history and parts.history.num_samples:
        history = parts.history
        lines.append(
            f"Trained on {history.num_samples:,} samples in {history.elapsed_s:,.0f} s "
            f"({history.images_per_s:,.0f} images/s)"
            + ("." if history.complete else "; the training has not ended yet.")
        )
    if parts.evaluation:
        best = min(parts.evaluation, key=lambda mode: parts.evaluation[mode]["top1_error"])
        accuracy = percent(1 - parts.evaluation[best]["top1_error"])
        lines.append(
            f"Best accuracy on the test images: **{accuracy}** ({best.replace('_', ' ')})."
        )
    return "\n".join([*lines, f"Made by `{parts.command}`."])


def _training(parts: ReportParts) -> str:
    if parts.history is None:
        return ""
    pictures = [f"![{title}](plots/{path.name})" for title, path in parts.plots.items()]
    figures = training_figures(parts.history)
    del figures["replica"]
    iterations = _folded("Iterations of the batch optimiser", iteration_rows(parts.history))
    tables = [_table(replica_rows(parts.history)), iterations, _figures({"training": figures})]
    return "\n\n".join(filter(None, [*pictures, *tables]))


def _incidents(history: TrainingHistory | None) -> str:
    if history is None:
        return ""
    return _table(incident_rows(history)) or "None: no process was lost, nothing was resumed."


def _data(parts: ReportParts) -> str:
    figures = _figures({"data": parts.data})
    folded = [_folded(title, rows) for title, rows in parts.data_tables.items()]
    link = (
        f"[All images of the first training tar](plots/{parts.contact_sheet.name})"
        if parts.contact_sheet
        else ""
    )
    return "\n\n".join(filter(None, [figures, *folded, link]))


def _figures(tree: Mapping[str, Any]) -> str:
    """A table of figures under their names in summary.json."""
    return _table([{"figure": f"`{name}`", "value": value} for name, value in dotted(tree).items()])


def _folded(title: str, rows: Sequence[Row]) -> str:
    """A table that opens at a click."""
    if not rows:
        return ""
    return f"<details><summary>{title}: {len(rows)}</summary>\n\n{_table(rows)}\n\n</details>"


def _table(rows: Sequence[Row]) -> str:
    return markdown_table(rows) if rows else ""
