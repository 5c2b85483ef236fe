"""Downpour and Sandblaster in turns on one set of parameter shards, as one run.

The shards serve all phases: parameters and the rule's slots stay in their memory, and only the
replicas and their coordinator change. Each phase has a folder of its own, which begins with the
last checkpoint of the phase before, so that a killed run goes on in the phase in which it was.
What the phases tell is put together to one event log with one time and one count of samples.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed

from engine import checkpoint
from engine.config import ClusterConfig, DownpourConfig, TrainingConfig
from engine.dask_sandblaster import sandblaster_phase
from engine.dask_session import Session
from engine.dask_train import downpour_phase
from engine.events import EventLog, Listener, Row, ignore
from engine.problem import ProblemFactory
from engine.result import TrainingResult
from engine.sandblaster.config import PhaseConfig, SandblasterConfig
from engine.start import begin_from

#: Rows that are about a phase, and so not about the run.
_OF_A_PHASE = ("start", "finished")


def train_phases(
    client: distributed.Client,
    factory: ProblemFactory,
    config: SandblasterConfig,
    cluster: ClusterConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener = ignore,
) -> TrainingResult:
    """Train by `config.phases`, one after another; arguments as for `train_sandblaster`."""
    story = _Story(folder, listen, config.num_epochs)
    try:
        with Session(client, cluster) as session:
            before: Path | None = None
            for index, phase in enumerate(config.phases):
                own = folder / f"phase-{index}"
                settings = phase_settings(config, phase, index)
                if before:
                    begin_from(
                        checkpoint.read(max(before.glob("[0-9]" * 6))),
                        own / "checkpoints",
                        settings.name,
                        resharding=cluster.allow_resharding,
                    )
                story.begin(index, phase)
                result = _train(session, factory, settings, own, identity, story.listen)
                story.end(result, last=index == len(config.phases) - 1)
                before = own / "checkpoints"
    finally:
        story.close()
    return replace(result, num_samples=story.samples, elapsed_s=story.time_s)


def _train(
    session: Session,
    factory: ProblemFactory,
    settings: DownpourConfig | SandblasterConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener,
) -> TrainingResult:
    """One phase."""
    if isinstance(settings, DownpourConfig):
        return downpour_phase(session, factory, settings, folder, identity, listen)
    return sandblaster_phase(session, factory, settings, folder, identity, listen)


def phase_settings(
    config: SandblasterConfig, phase: PhaseConfig, index: int
) -> DownpourConfig | SandblasterConfig:
    """The settings of one phase: its share of the epochs, one at least, and of the schedule."""
    num_epochs = max(1, round(phase.share * config.num_epochs))
    if phase.algorithm == "sandblaster":
        return replace(config, num_epochs=num_epochs, phases=())
    common = {name: getattr(config, name) for name in TrainingConfig.__dataclass_fields__}
    begin = sum(before.share for before in config.phases[:index])
    schedule = replace(config.schedule, part=(begin, min(1.0, begin + phase.share)))
    own = {"num_epochs": num_epochs, "seed": config.seed + index, "schedule": schedule}
    return DownpourConfig(**common | own)


class _Story:
    """One event log of all phases: times and samples go on where the phase before ended."""

    def __init__(self, folder: Path, listen: Listener, num_epochs: int) -> None:
        self._log = EventLog(folder / "events.jsonl", listen)
        self._num_epochs = num_epochs
        self._phase: dict[str, Any] = {}
        self._samples_of: Counter[str] = Counter()  # of earlier phases, by replica
        self._own_samples_of: Counter[str] = Counter()
        self._per_epoch = 1  # samples
        self._told = False  # of the run's start
        self._outcome: dict[str, str] = {}  # of the last batch optimiser
        self.samples = 0  # of earlier phases
        self.time_s = 0.0
        self._heard_s = 0.0  # of the newest row

    def begin(self, index: int, phase: PhaseConfig) -> None:
        """The rows to come are those of this phase."""
        self._phase = {"phase": index, "algorithm": phase.algorithm}
        self._own_samples_of.clear()

    def end(self, result: TrainingResult, last: bool) -> None:
        """The phase is over."""
        self.samples += result.num_samples
        self.time_s = max(self.time_s + result.elapsed_s, self._heard_s)
        self._samples_of += self._own_samples_of
        if last and not result.already_complete:
            row = {"samples": self.samples, "elapsed_s": self.time_s, **self._outcome}
            self._log.write("finished", self.time_s, **row)

    def listen(self, row: Row) -> None:
        """Pass a phase's row on as one of the whole run."""
        row = dict(row)
        event, time_s = row.pop("event"), row.pop("time_s") + self.time_s
        self._heard_s = time_s
        if event == "start":
            self._start(row, time_s)
        if "outcome" in row:
            self._outcome = {"outcome": row["outcome"]}
        if event in _OF_A_PHASE:
            return
        if event != "evaluation" and "samples" in row:  # an evaluation tells them by replica
            row["samples"] += self.samples
        if event == "validation":
            row["epoch"] = round(row["epoch"] + self.samples / self._per_epoch, 4)
        if event == "progress":
            replica = str(row["replica"])
            self._own_samples_of[replica] = row["replica_samples"]
            row["replica_samples"] += self._samples_of[replica]
        elif event == "evaluation":
            self._own_samples_of.update({str(k): n for k, n in row["samples"].items()})
        self._log.write(event, time_s, **row)

    def close(self) -> None:
        self._log.close()

    def _start(self, row: Row, time_s: float) -> None:
        resumed = row["resumed_at_samples"]
        self._per_epoch = row["num_samples_total"] // row["num_epochs"]
        if not self._told:
            self._told = True
            row["num_samples_total"] = self._per_epoch * self._num_epochs
            row["num_epochs"] = self._num_epochs
            row["resumed_at_samples"] = resumed + self.samples
            self._log.write("start", time_s, **row)
        self._log.write("phase", time_s, samples=self.samples + resumed, **self._phase)
