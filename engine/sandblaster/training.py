"""One Sandblaster run from its first command to its final checkpoint."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engine import checkpoint
from engine.batch.iterate import Iterate, Solution
from engine.batch.methods import program, vector_names
from engine.batch.names import START, s, y
from engine.batch.program import Answer, Commit, Evaluate, Instruction, Run
from engine.batch.vector import copy
from engine.checkpoint import Checkpoint, ShardFile
from engine.events import EventLog
from engine.frames import Message
from engine.instructions import RunFailedError
from engine.ledger import Range
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.driver import Driver
from engine.sandblaster.record import IterationRecord, record_folder, write_record
from engine.sandblaster.vectors import PARAMETERS

_BUDGET_SPENT = "as many samples processed as num_epochs allows"


class Training:
    """Carries out an optimiser's program and commits what it wants kept."""

    def __init__(
        self,
        driver: Driver,
        config: SandblasterConfig,
        folder: Path,
        identity: Mapping[str, str],
        batch_size: int,
        record: IterationRecord | None,
        events: EventLog,
        epoch: int,
    ) -> None:
        """Go on from `record`, or from the parameters that the shards hold.

        Args:
            folder: of the run; gets `records/` and `checkpoints/`.
            batch_size: samples of the full batch.
            epoch: of the coordinator.
        """
        self._driver = driver
        self._config = config
        self._records = folder / "records"
        self._checkpoints = folder / "checkpoints"
        self._identity = identity
        self._batch_size = batch_size
        self._record = record
        self._number = record.number if record else 0
        self._epoch = epoch
        self._samples = record.num_samples if record else 0
        self._events = events
        self._at = Iterate(iteration=0, point=START, grad="", loss=0.0, gradient_norm=0.0)

    def train(self) -> Checkpoint:
        """Optimise until the optimiser ends or the budget is spent; return the final checkpoint."""
        self._place_vectors()
        ended = self._go_through()
        outcome = ended.outcome.value if ended else _BUDGET_SPENT
        final = self._finish(ended.iterate if ended else self._at)
        self._events.record(
            "finished",
            samples=self._samples,
            elapsed_s=self._events.elapsed_s,
            iterations=self._at.iteration,
            outcome=outcome,
        )
        self._driver.stop()
        shutil.rmtree(self._records, ignore_errors=True)
        return final

    def _place_vectors(self) -> None:
        """Put the vectors of the record, or the initial point, where the optimiser expects them."""
        if self._record is None:
            self._driver.run([copy(START, PARAMETERS)])
        else:
            self._driver.ask("restore", folder=str(self._records), kept=self._record.kept)

    def _go_through(self) -> Solution | None:
        """Carry out the program; None if the budget ended it."""
        record = self._record.optimiser if self._record else None
        steps = program(self._config.optimiser, record)
        answer: Answer = None
        while True:
            try:
                instruction = steps.send(answer)
            except StopIteration as stop:
                solution: Solution = stop.value
                return solution
            answer = self._carry_out(instruction)
            if isinstance(instruction, Commit) and self._spent():
                return None

    def _carry_out(self, instruction: Instruction) -> Answer:
        match instruction:
            case Run(commands):
                return self._driver.run(commands)
            case Evaluate(point, grad, samples):
                size = samples.stop - samples.start if samples else self._batch_size
                self._samples += size
                return self._driver.evaluate(point, grad, samples)
            case Commit(record):
                self._commit(record)
                return None

    def _spent(self) -> bool:
        return self._samples >= self._config.num_epochs * self._batch_size

    def _commit(self, optimiser: Mapping[str, Any]) -> None:
        """Keep the optimiser's record and the vectors that it names, on disk."""
        at = Iterate(**optimiser["iterate"])
        self._at = at
        self._events.record(
            "iteration",
            iteration=at.iteration,
            samples=self._samples,
            loss=at.loss,
            gradient_norm=at.gradient_norm,
            step_length=at.step_length,
            round_trips=self._driver.num_round_trips,
            counts=dict(at.counts),
        )
        self._number += 1
        folder = record_folder(self._records, self._number)
        names = sorted(named_in(optimiser, vector_names(self._config.optimiser)))
        record = self._as_record(optimiser)
        self._driver.keep(str(folder), names, partial(self._write, record))
        if at.iteration and at.iteration % self._config.validate_every_iterations == 0:
            self._validate(at.point)

    def _write(self, record: IterationRecord, answers: Sequence[Message]) -> None:
        """Make a record the newest: the shards have written their vectors, or could not."""
        try:
            if failed := next((a["failed"] for a in answers if "failed" in a), None):
                raise OSError(failed)
            write_record(self._records, replace(record, kept=[a["kept"] for a in answers]))
        except OSError as error:
            self._events.record("commit_failed", reason=str(error))

    def _as_record(self, optimiser: Mapping[str, Any]) -> IterationRecord:
        """The record but for what the shards know."""
        return IterationRecord(
            number=self._number,
            epoch=self._epoch,
            identity=dict(self._identity),
            optimiser=optimiser,
            kept=(),
            num_samples=self._samples,
            elapsed_s=self._events.elapsed_s,
        )

    def _validate(self, point: str) -> None:
        metrics = dict(self._driver.validate(point))
        epoch = round(self._samples / self._batch_size, 4)
        self._events.record("validation", samples=self._samples, epoch=epoch, metrics=metrics)

    def _finish(self, at: Iterate) -> Checkpoint:
        """Make the iterate the shards' parameters, and a checkpoint of them."""
        self._driver.settle()
        self._driver.run([copy(PARAMETERS, at.point)])
        id = checkpoint.next_id(self._checkpoints)
        answers = self._driver.ask("checkpoint", id=id)
        if failed := next((a["failed"] for a in answers if "failed" in a), None):
            raise RunFailedError(f"a shard cannot write the final checkpoint: {failed}")
        final = checkpoint.commit(
            self._checkpoints,
            id,
            identity=self._identity,
            shards=[ShardFile(a["version"], a["digests"]) for a in answers],
            # Samples are processed many times over; what the checkpoint tells is how many.
            counted=(Range(0, 0, 0, self._samples),),
            num_steps=at.iteration,
            elapsed_s=self._events.elapsed_s,
            final=True,
            keep=self._config.keep_checkpoints,
        )
        self._events.record("checkpoint", samples=self._samples, path=str(final.folder))
        self._validate(PARAMETERS)
        self._driver.ask("forget")
        return final


def named_in(record: Any, names: Sequence[str]) -> set[str]:
    """The vectors that a record names: in words, or as slots of a history of curvature pairs.

    Not those of the spare slot, which the next iteration writes while these are kept.
    """
    words, slots = set[str](), set[int]()
    _gather(record, words, slots)
    return words.intersection(names) | {f(slot) for slot in slots for f in (s, y)}


def _gather(value: Any, words: set[str], slots: set[int]) -> None:
    match value:
        case str():
            words.add(value)
        case Mapping():
            slots.update(value.get("slots", ()))
            for item in value.values():
                _gather(item, words, slots)
        case list() | tuple():
            for item in value:
                _gather(item, words, slots)
