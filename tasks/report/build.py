"""Write a run's report, plots and summary from the files that its stages left."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.contact_sheet import contact_sheet
from data.duplicates import read_duplicates
from data.manifest import MANIFEST, Manifest, read_manifest
from data.publish import published
from tasks.records import read_record
from tasks.report.data_tables import data_tables
from tasks.report.document import ReportParts, report_document
from tasks.report.history import TrainingHistory, history_of, read_events
from tasks.report.machine import machine_facts
from tasks.report.plots import draw_plots
from tasks.report.summary import Figures, dotted, training_figures


def build_report(folder: Path, staged: Path, overrides: Sequence[str]) -> Path:
    """Write report.md, plots/ and summary.json of the run in `folder`; return report.md.

    What the run has not done yet is left out. Files that would not change are not touched.
    """
    history = _history(folder / "training" / "events.jsonl")
    manifest = read_manifest(staged) if (staged / MANIFEST).exists() else None
    parts = ReportParts(
        run_name=folder.name,
        config_yaml=(folder / "config.yaml").read_text(encoding="utf-8"),
        command=" ".join(["python -m flows.pipeline", *overrides]),
        data=data_figures(manifest) if manifest else {},
        history=history,
        evaluation=read_record(folder / "evaluation.json") or {},
        transfer=read_record(folder / "transfer.json") or {},
        machine=machine_facts(),
        plots=_write_plots(history, folder / "plots") if history else {},
        data_tables=data_tables(manifest, read_duplicates(staged)) if manifest else {},
        contact_sheet=_write_contact_sheet(staged, folder / "plots") if manifest else None,
    )
    write_if_changed(folder / "summary.json", json.dumps(summary(parts), indent=2).encode())
    report = folder / "report.md"
    write_if_changed(report, report_document(parts).encode())
    return report


def summary(parts: ReportParts) -> Figures:
    """Every figure of the report by dotted name."""
    tree: dict[str, Any] = {"run": parts.run_name, "data": parts.data}
    if parts.history:
        tree["training"] = training_figures(parts.history)
    tree |= {"evaluation": parts.evaluation, "transfer": parts.transfer, "machine": parts.machine}
    return dotted(tree)


def data_figures(manifest: Manifest) -> Figures:
    """What was staged."""
    return {
        "name": manifest.name,
        "num_train": sum(entry.num_samples for entry in manifest.train),
        "num_test": sum(entry.num_samples for entry in manifest.test),
        "num_classes": len(manifest.class_names),
        "num_tars": len(manifest.entries),
        "num_bytes": sum(entry.num_bytes for entry in manifest.entries),
        "num_left_out": len(manifest.quarantined),
        **(dotted({"duplicates": asdict(manifest.duplicates)}) if manifest.duplicates else {}),
        "mean_rgb": ", ".join(f"{channel:.1f}" for channel in manifest.mean_rgb),
    }


def write_if_changed(path: Path, content: bytes) -> None:
    """Replace the file, atomically, unless it holds just that."""
    if not path.exists() or path.read_bytes() != content:
        with published(path) as file:
            file.write(content)


def _write_contact_sheet(staged: Path, folder: Path) -> Path:
    """Draw the first training tar once: what was staged does not change."""
    path = folder / "first_tar.png"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        with published(path) as file:
            contact_sheet(staged, "train", tar=0, columns=16).save(file, format="png")
    return path


def _history(events: Path) -> TrainingHistory | None:
    return history_of(read_events(events)) if events.exists() else None


def _write_plots(history: TrainingHistory, folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    plots = {}
    for plot in draw_plots(history):
        plots[plot.title] = folder / plot.file
        write_if_changed(plots[plot.title], plot.png)
    return plots
