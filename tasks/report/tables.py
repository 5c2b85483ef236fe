"""The tables of a report. A table is a list of rows, a row maps column titles to cells."""

from collections.abc import Mapping, Sequence

from data.manifest import Manifest
from tasks.report.history import TrainingHistory

MAX_ITERATIONS = 50  # rows of the table of iterations: of a long run every n-th
Row = Mapping[str, object]
Results = Mapping[str, Mapping[str, float]]


def markdown_table(rows: Sequence[Row]) -> str:
    """GitHub's Markdown for `rows`; the columns are those of the first row."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[str(row[column]) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(fraction: float) -> str:
    """A fraction in [0, 1] for people."""
    return f"{100 * fraction:.1f} %"


def manifest_rows(manifest: Manifest) -> list[Row]:
    """One row for each tar."""
    splits = {"train": manifest.train, "test": manifest.test}
    return [
        {
            "tar": entry.file,
            "split": split,
            "samples": entry.num_samples,
            "MB": f"{entry.num_bytes / 1e6:.1f}",
            "left out": len(entry.quarantined),
            "SHA-256": entry.sha256[:12],
        }
        for split, entries in splits.items()
        for entry in entries
    ]


def evaluation_rows(evaluation: Results) -> list[Row]:
    """One row for each way to evaluate."""
    return [
        {
            "evaluation": mode.replace("_", " "),
            "accuracy": percent(1 - figures["top1_error"]),
            "top-1 error": percent(figures["top1_error"]),
            "top-5 error": percent(figures["top5_error"]),
            "images": f"{figures['num_images']:,.0f}",
            "seconds": f"{figures['seconds']:.1f}",
        }
        for mode, figures in evaluation.items()
    ]


def transfer_rows(transfer: Results) -> list[Row]:
    """One row for each data set: the trained network beside its two baselines."""
    return [
        {
            "data set": name,
            "accuracy": percent(figures["accuracy"]),
            "untrained": percent(figures["untrained_accuracy"]),
            "raw pixels": percent(figures["pixels_accuracy"]),
            "train / test images": f"{figures['num_train']:,.0f} / {figures['num_test']:,.0f}",
            "classes": f"{figures['num_classes']:.0f}",
            "features": f"{figures['dimensions']:,.0f}",
        }
        for name, figures in transfer.items()
    ]


def replica_rows(history: TrainingHistory) -> list[Row]:
    """One row for each replica."""
    portions = history.batch.portions_of
    return [
        {
            "replica": replica,
            "samples": f"{history.samples_of[replica]:,}",
            **({"portions": f"{portions[replica]:,}"} if portions else {}),
            "images/s": f"{sum(p.value for p in points) / len(points):,.0f}",
            "waiting": f"{history.waiting_s[replica]:.1f} s",
            "refused pushes": history.refused[replica],
        }
        for replica, points in sorted(history.throughput.items())
        if points
    ]


def iteration_rows(history: TrainingHistory) -> list[Row]:
    """One row for each iteration of a batch optimiser, the last one always among them."""
    iterations = history.batch.iterations
    stride = -(-len(iterations) // MAX_ITERATIONS) or 1
    replicas = sorted(history.batch.portions_of)
    return [
        {
            "iteration": row.number,
            "at": f"{row.time_s:.1f} s",
            "samples": f"{row.samples:,}",
            "loss": f"{row.loss:.5g}",
            "gradient": f"{row.gradient_norm:.3g}",
            "evaluations": row.evaluations,
            **{f"portions of {replica}": row.portions_of[replica] for replica in replicas},
            "backup tasks (won)": f"{row.backups} ({row.backups_won})",
            "waiting": f"{row.waiting_s:.1f} s",
        }
        for row in reversed(iterations[::-1][::stride])
    ]


def incident_rows(history: TrainingHistory) -> list[Row]:
    """One row for each incident, in the order in which they happened."""
    return [
        {
            "at": f"{incident.time_s:.1f} s",
            "what happened": incident.what,
            "what was done": incident.done,
        }
        for incident in history.incidents
    ]
