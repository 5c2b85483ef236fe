"""How far a training run is, from the rows of its event log."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.report.history import Point

#: The speed shown is a mean over so many seconds.
WINDOW_S = 15.0
#: A long run's curve is thinned, so that drawing it costs the same at any length.
MAX_POINTS = 1000


@dataclass
class TrainingStatus:
    """Running totals; `see` takes each row as it comes."""

    num_total: int = 0
    samples: int = 0
    loss: float | None = None
    top1_error: float | None = None
    losses: list[Point] = field(default_factory=list)
    gradient_norms: list[Point] = field(default_factory=list)  # of a batch optimiser
    backups: int = 0
    backups_won: int = 0
    waiting_s: float = 0.0  # of all replicas
    _seen: deque[tuple[float, int]] = field(default_factory=deque)  # (time_s, samples)

    def see(self, row: Mapping[str, Any]) -> None:
        """Take in one row."""
        match row["event"]:
            case "start":
                self.num_total = row["num_samples_total"]
                self._move(row["time_s"], row["resumed_at_samples"])
            case "progress":
                self.loss = row["loss"]
                self._add_loss(row)
            case "iteration":  # of a batch optimiser
                self.loss = row["loss"]
                self._add_loss(row)
                norm = Point(row["time_s"], row["samples"], row["gradient_norm"])
                _add(self.gradient_norms, norm)
            case "evaluation":
                self.backups += row["backups"]
                self.backups_won += row["backups_won"]
                self.waiting_s += sum(row["waiting_s"].values())
            case "validation":
                self.top1_error = row["metrics"].get("top1_error")

    @property
    def fraction(self) -> float:
        """Of the samples of all epochs, in [0, 1]; the last iteration of a batch may end beyond."""
        return min(1.0, self.samples / self.num_total) if self.num_total else 0.0

    @property
    def images_per_s(self) -> float:
        """Of all replicas together, over the last seconds; 0 until it can be told."""
        if not self._seen:
            return 0.0
        (start_s, start), (end_s, end) = self._seen[0], self._seen[-1]
        return (end - start) / (end_s - start_s) if end_s > start_s else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the end at the present speed, or None while that is not known."""
        speed = self.images_per_s
        return (self.num_total - self.samples) / speed if speed else None

    def line(self) -> str:
        """One line for people."""
        parts = [f"{100 * self.fraction:.1f} % of {self.num_total:,} samples"]
        parts.append(f"{self.images_per_s:,.0f} images/s")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.top1_error is not None:
            parts.append(f"validation accuracy {100 * (1 - self.top1_error):.1f} %")
        if self.gradient_norms:
            parts.append(f"gradient {self.gradient_norms[-1].value:.2g}")
            parts.append(f"{self.backups} backup tasks ({self.backups_won} won)")
            parts.append(f"{self.waiting_s:.1f} s waited")
        if (left := self.remaining_s) is not None:
            parts.append(f"{_clock_time(left)} left")
        return ", ".join(parts)

    def short_line(self) -> str:
        """`line` for a narrow terminal, beside a bar."""
        parts = [f"{100 * self.fraction:3.0f} %", f"{self.images_per_s:,.0f} images/s"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.top1_error is not None:
            parts.append(f"accuracy {100 * (1 - self.top1_error):.1f} %")
        if (left := self.remaining_s) is not None:
            parts.append(_clock_time(left))
        return "  ".join(parts)

    def _add_loss(self, row: Mapping[str, Any]) -> None:
        _add(self.losses, Point(row["time_s"], row["samples"], row["loss"]))
        self._move(row["time_s"], row["samples"])

    def _move(self, time_s: float, samples: int) -> None:
        self.samples = max(self.samples, samples)
        self._seen.append((time_s, self.samples))
        while len(self._seen) > 2 and self._seen[1][0] < time_s - WINDOW_S:
            self._seen.popleft()


def _add(points: list[Point], point: Point) -> None:
    points.append(point)
    if len(points) > MAX_POINTS:
        del points[1::2]


def _clock_time(seconds: float) -> str:
    """Minutes and seconds, rounded to the second."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
