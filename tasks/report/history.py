"""What happened during a training run, read back from its event log."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tasks.report.incidents import Event, Incident, IncidentTeller


class Point(NamedTuple):
    """One value, known after `time_s` seconds of training and `samples` samples."""

    time_s: float
    samples: int
    value: float


class Phase(NamedTuple):
    """Where a stretch of a run by one algorithm begins."""

    time_s: float
    samples: int
    algorithm: str


@dataclass
class Iteration:
    """One iteration of a batch optimiser, with what its evaluations took."""

    number: int = 0
    time_s: float = 0.0
    samples: int = 0  # processed so far in the run
    loss: float = 0.0
    gradient_norm: float = 0.0
    evaluations: int = 0
    portions_of: Counter[int] = field(default_factory=Counter)  # replica -> portions computed
    backups: int = 0
    backups_won: int = 0
    waiting_s: float = 0.0  # of all replicas


@dataclass
class BatchOptimisation:
    """What a batch optimiser adds to a history."""

    gradient_norm: list[Point] = field(default_factory=list)  # one an iteration
    final_loss: float | None = None  # over the whole batch, of the last iterate
    num_iterations: int = 0
    num_evaluations: int = 0
    portions_of: Counter[int] = field(default_factory=Counter)  # replica -> portions computed
    num_backups: int = 0  # portions computed by a second replica too
    num_backups_won: int = 0  # those that came first
    outcome: str = ""
    iterations: list[Iteration] = field(default_factory=list)
    under_way: Iteration = field(default_factory=Iteration)  # evaluations of the next one


@dataclass
class TrainingHistory:
    """The curves and counts of one run over all of its resumptions."""

    loss: list[Point] = field(default_factory=list)
    validation: dict[str, list[Point]] = field(default_factory=lambda: defaultdict(list))
    throughput: dict[int, list[Point]] = field(default_factory=lambda: defaultdict(list))
    samples_of: Counter[int] = field(default_factory=Counter)
    waiting_s: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    staleness: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    staleness_at: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    clipped: Counter[int] = field(default_factory=Counter)  # replica -> gradients
    refused: Counter[int] = field(default_factory=Counter)
    incidents: list[Incident] = field(default_factory=list)
    batch: BatchOptimisation = field(default_factory=BatchOptimisation)
    phases: list[Phase] = field(default_factory=list)  # of a run by several algorithms
    num_samples: int = 0
    elapsed_s: float = 0.0
    complete: bool = False

    @property
    def images_per_s(self) -> float:
        """Mean throughput of the whole run; 0 before the first sample."""
        return self.num_samples / self.elapsed_s if self.elapsed_s else 0.0


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an event log; a line that a dying process cut short is left out."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(json.JSONDecodeError):
                yield json.loads(line)


def history_of(rows: Iterable[Event]) -> TrainingHistory:
    """Gather the rows of all resumptions of one run into its history.

    A run that resumes at a checkpoint computes the samples after it again: what the log said of
    them before is dropped from the curves, not from the incidents.
    """
    history, teller = TrainingHistory(), IncidentTeller()
    for row in rows:
        history.elapsed_s = max(history.elapsed_s, float(row["time_s"]))
        match row["event"]:
            case "start":
                _resume(history, row)
            case "progress":
                _progress(history, row)
                _staleness(history, row)
            case "pushes":
                _staleness(history, row)
            case "iteration":
                _iteration(history, row)
            case "evaluation":
                _evaluation(history, row)
            case "validation":
                for name, value in row["metrics"].items():
                    history.validation[name].append(Point(row["time_s"], row["samples"], value))
            case "phase" if row["phase"] == len(history.phases):  # a resumption repeats it
                phase = Phase(row["time_s"], row["samples"], str(row["algorithm"]))
                history.phases.append(phase)
            case "push_refused":
                history.refused[row["replica"]] += row["pushes"]
            case "finished":
                history.num_samples = row["samples"]
                history.elapsed_s = row["elapsed_s"]
                history.complete = True
                history.batch.outcome = str(row.get("outcome", ""))
        if incident := teller.tell(row):
            history.incidents.append(incident)
    return history


def _resume(history: TrainingHistory, row: Event) -> None:
    resumed_at = int(row["resumed_at_samples"])
    curves = [
        history.loss,
        history.batch.gradient_norm,
        *history.validation.values(),
        *history.throughput.values(),
    ]
    for curve in curves:
        curve[:] = [point for point in curve if point.samples <= resumed_at]
    batch = history.batch
    batch.iterations[:] = [row for row in batch.iterations if row.samples <= resumed_at]
    batch.under_way = Iteration()
    history.num_samples = resumed_at
    history.complete = False


def _progress(history: TrainingHistory, row: Event) -> None:
    time_s, samples, replica = float(row["time_s"]), int(row["samples"]), int(row["replica"])
    history.num_samples = max(history.num_samples, samples)
    history.loss.append(Point(time_s, samples, row["loss"]))
    history.throughput[replica].append(Point(time_s, samples, row["images_per_s"]))
    history.samples_of[replica] = row["replica_samples"]
    history.waiting_s[replica] += row["waiting_s"]
    history.clipped[replica] += row.get("clipped", 0)  # replicas of Downpour tell


def _staleness(history: TrainingHistory, row: Event) -> None:
    """A row tells it by shard, of the pushes of one replica."""
    for shard, counts in row["staleness"].items():
        for staleness, pushes in counts.items():
            history.staleness[int(row["replica"])][int(staleness)] += pushes
            history.staleness_at[int(shard)][int(staleness)] += pushes


def _iteration(history: TrainingHistory, row: Event) -> None:
    time_s, samples = float(row["time_s"]), int(row["samples"])
    history.num_samples = max(history.num_samples, samples)
    history.loss.append(Point(time_s, samples, row["loss"]))
    batch, norm = history.batch, float(row["gradient_norm"])
    batch.gradient_norm.append(Point(time_s, samples, norm))
    batch.final_loss = row["loss"]
    batch.num_iterations = int(row["iteration"])
    done, batch.under_way = batch.under_way, Iteration()
    done.number, done.time_s, done.samples = batch.num_iterations, time_s, samples
    done.loss, done.gradient_norm = float(row["loss"]), norm
    batch.iterations.append(done)


def _evaluation(history: TrainingHistory, row: Event) -> None:
    batch, time_s, seconds = history.batch, float(row["time_s"]), float(row["seconds"])
    batch.num_evaluations += 1
    batch.num_backups += row["backups"]
    batch.num_backups_won += row["backups_won"]
    now = batch.under_way
    now.evaluations += 1
    now.backups += row["backups"]
    now.backups_won += row["backups_won"]
    now.waiting_s += sum(row["waiting_s"].values())
    for name, samples in row["samples"].items():  # JSON's keys are text
        replica = int(name)
        history.samples_of[replica] += samples
        speed = samples / seconds if seconds else 0.0
        history.throughput[replica].append(Point(time_s, history.num_samples, speed))
    for name, portions in row["portions"].items():
        batch.portions_of[int(name)] += portions
        now.portions_of[int(name)] += portions
    for name, waiting_s in row["waiting_s"].items():
        history.waiting_s[int(name)] += waiting_s
