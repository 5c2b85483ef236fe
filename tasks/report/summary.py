"""Every figure of a run by its dotted name."""

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from statistics import fmean
from typing import Any

from tasks.report.history import TrainingHistory

Figures = dict[str, float | int | str | bool | None]


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Figures:
    """Flatten nested mappings: {"a": {"b": 1}} gives {"a.b": 1}."""
    figures: Figures = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            figures |= dotted(value, f"{prefix}{name}.")
        elif isinstance(value, float) and not isfinite(value):
            figures[f"{prefix}{name}"] = None  # JSON has neither NaN nor infinity
        else:
            figures[f"{prefix}{name}"] = value
    return figures


def training_figures(history: TrainingHistory) -> dict[str, Any]:
    """The figures of the training, nested. Losses are means over the last ten progress rows."""
    figures: dict[str, Any] = {
        "complete": history.complete,
        "num_samples": history.num_samples,
        "elapsed_s": round(history.elapsed_s, 2),
        "images_per_s": round(history.images_per_s, 1),
        "waiting_s": round(sum(history.waiting_s.values()), 2),
        "refused_pushes": history.refused.total(),
        "clipped_gradients": history.clipped.total(),
        "incidents": len(history.incidents),
    }
    if history.loss:
        figures["final_loss"] = fmean(point.value for point in history.loss[-10:])
    figures["validation"] = {name: points[-1].value for name, points in history.validation.items()}
    staleness = sum(history.staleness.values(), Counter())
    if staleness:
        figures["staleness"] = _distribution(staleness)
        figures["staleness_at_shard"] = {
            str(shard): _distribution(counts)
            for shard, counts in sorted(history.staleness_at.items())
        }
    if history.batch.num_evaluations:
        figures["batch"] = _batch_figures(history)
    portions = history.batch.portions_of
    figures["replica"] = {
        str(replica): {
            "num_samples": history.samples_of[replica],
            "images_per_s": round(fmean(point.value for point in points), 1),
            "waiting_s": round(history.waiting_s[replica], 2),
            **({"portions": portions[replica]} if portions else {}),
            "refused_pushes": history.refused[replica],
        }
        for replica, points in sorted(history.throughput.items())
        if points
    }
    return figures


def _batch_figures(history: TrainingHistory) -> dict[str, Any]:
    batch = history.batch
    figures: dict[str, Any] = {
        "outcome": batch.outcome,
        "iterations": batch.num_iterations,
        "evaluations": batch.num_evaluations,
        "backup_tasks": batch.num_backups,
        "backup_tasks_won": batch.num_backups_won,
    }
    if batch.gradient_norm:
        figures["final_loss"] = batch.final_loss
        figures["final_gradient_norm"] = batch.gradient_norm[-1].value
    return figures


def _distribution(counts: Counter[int]) -> dict[str, float]:
    total = counts.total()
    return {
        "num_pushes": total,
        "mean": round(sum(value * count for value, count in counts.items()) / total, 3),
        "max": max(counts),
    }
