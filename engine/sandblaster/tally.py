"""Counts of one evaluation: who computed what, and how long replicas waited."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from engine.frames import Message
from engine.sandblaster.evaluation import Evaluation


@dataclass
class EvaluationTally:
    """What the replicas say of their own work."""

    started: float = 0.0
    portions: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    samples: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    computing_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    waiting_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def hear(self, replica: int, message: Message, num_samples: int) -> None:
        """A sum over so many samples has arrived, whether or not it counts."""
        self.samples[replica] += num_samples
        self.portions[replica] += len(message["losses"])
        self.computing_s[replica] += message["computing_s"]
        self.waiting_s[replica] += message["waiting_s"]

    def row(self, evaluation: Evaluation, now: float) -> dict[str, Any]:
        """The event of a finished evaluation; seconds of waiting are those of all replicas."""
        return {
            "evaluation": evaluation.id,
            "gradient": evaluation.grad is not None,
            "batch_samples": evaluation.num_samples,
            "loss": evaluation.loss,
            "seconds": now - self.started,
            "portions": dict(self.portions),
            "samples": dict(self.samples),
            "computing_s": dict(self.computing_s),
            "waiting_s": dict(self.waiting_s),
            "backups": evaluation.ledger.num_backups,
            "backups_won": evaluation.ledger.num_backups_won,
        }
