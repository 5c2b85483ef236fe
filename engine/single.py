"""The baseline: one plain torch loop with torch's own optimiser, in this process."""

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint, ShardFile
from engine.clipping import with_clipping
from engine.config import SingleConfig
from engine.device import device_of
from engine.downpour import LeasedMinibatch
from engine.draws import seed_draws
from engine.events import EventLog, Listener, ignore
from engine.finite import require_finite_loss, require_finite_parameters
from engine.interruptible import interruptible
from engine.ledger import Ledger
from engine.loader import LeaseReply, leased_minibatches, prefetched
from engine.problem import Problem, ProblemFactory, build
from engine.result import TrainingResult
from engine.schedule import scale_at
from engine.start import full_identity, resume_or_begin
from engine.torch_optimiser import restore_slots, slots_of, torch_optimiser

_REPORT_S = 0.5
_LEASE_MINIBATCHES = 8
_HOLDER = (0, 1)


def train_single(
    factory: ProblemFactory,
    config: SingleConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener = ignore,
) -> TrainingResult:
    """Train with torch.optim on all cores; arguments and files as for `train_downpour`.

    Raises:
        CheckpointMismatchError: `folder` holds a run of another identity.
        RunFailedError: the loss or a parameter is NaN or infinite.
    """
    problem = with_clipping(build(factory), config.clip)
    whole = slice(0, problem.layout.size)
    identity = full_identity(identity, problem, 1, config.name)
    start = resume_or_begin(
        folder / "checkpoints", identity, problem, config.rule, [whole], config.start_from
    )
    if start.final:
        return TrainingResult.of(start, already_complete=True)
    events = EventLog(folder / "events.jsonl", listen, start.elapsed_s)
    try:
        loop = _Loop(problem, config, folder / "checkpoints", identity, start, events)
        final = interruptible(loop.run, loop.stop)
    finally:
        events.close()
    return TrainingResult.of(final, already_complete=False)


class _Loop:
    """The loop with its bookkeeping: ledger, events, checkpoints, validation."""

    def __init__(
        self,
        problem: Problem,
        config: SingleConfig,
        checkpoints: Path,
        identity: Mapping[str, str],
        start: Checkpoint,
        events: EventLog,
    ) -> None:
        self._problem = problem
        self._config = config
        self._checkpoints = checkpoints
        self._identity = identity
        self._events = events
        self._ledger = Ledger(
            problem.unit_sizes,
            config.num_epochs,
            lease_size=_LEASE_MINIBATCHES * config.minibatch_size,
            seed=config.seed,
            counted=start.counted,
        )
        self._ledger_lock = threading.Lock()  # the loader thread leases, this one counts
        self._stop = threading.Event()
        self._epoch_size = sum(problem.unit_sizes)
        self._parameters = start.read_parameters().to(device_of(problem))
        self._grad = torch.empty_like(self._parameters)
        self._parameters.grad = self._grad
        self._optimiser = torch_optimiser(config.rule, [self._parameters])
        self._rate = float(self._optimiser.param_groups[0]["lr"])
        self._num_steps = start.num_steps
        self._version = start.shards[0].version  # updates that the optimiser's state has seen
        if self._version:
            restore_slots(
                self._optimiser,
                self._parameters,
                config.rule,
                start.read_shard(0),
                self._version,
            )

    def stop(self) -> None:
        """Have `run` return after one more checkpoint. May be called from any thread."""
        self._stop.set()

    def run(self) -> Checkpoint:
        """Train to the end, or until told to stop; return the last checkpoint."""
        self._events.record(
            "start",
            num_samples_total=self._ledger.num_total,
            num_epochs=self._config.num_epochs,
            resumed_at_samples=self._ledger.num_counted,
            replicas=1,
            shards=0,
        )
        validation_step = self._config.validate_every_epochs * self._epoch_size
        next_validation = (self._ledger.num_counted // validation_step + 1) * validation_step
        reported = saved = time.monotonic()
        loss_sum, samples = 0.0, 0
        for minibatch in self._minibatches():
            loss_sum += self._step(minibatch) * minibatch.num_samples
            samples += minibatch.num_samples
            with self._ledger_lock:
                self._ledger.count(_HOLDER, minibatch.progress)
            if self._stop.is_set():
                return self._save(final=False)
            now = time.monotonic()
            if now - reported >= _REPORT_S or self._ledger.complete:
                self._report(loss_sum, samples, now - reported)
                reported, loss_sum, samples = now, 0.0, 0
            if self._ledger.num_counted >= next_validation and not self._ledger.complete:
                self._validate(self._save(final=False))
                next_validation += validation_step
                saved = reported = time.monotonic()  # validation is no part of the images/s
            elif now - saved >= self._config.checkpoint_every_s:
                self._save(final=False)
                saved = time.monotonic()
        final = self._save(final=True)
        self._validate(final)
        self._events.record("finished", samples=final.num_counted, elapsed_s=self._events.elapsed_s)
        return final

    def _minibatches(self) -> Iterator[LeasedMinibatch]:
        source = leased_minibatches(
            self._ask, self._problem, self._config.minibatch_size, self._config.seed
        )
        for minibatch in prefetched(source, self._config.prefetch):
            if isinstance(minibatch, LeasedMinibatch):
                yield minibatch

    def _ask(self) -> LeaseReply:
        """Called by the loader thread, which is alone in asking."""
        with self._ledger_lock:
            fraction = self._ledger.num_leased / self._ledger.num_total
            lease = self._ledger.lease(_HOLDER)
        scale = scale_at(self._config.schedule, fraction)
        return LeaseReply(lease, scale, done=lease is None)

    def _step(self, minibatch: LeasedMinibatch) -> float:
        seed_draws(minibatch.seed)
        loss = self._problem.gradient_(self._parameters, minibatch.payload, self._grad)
        require_finite_loss(loss, self._num_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * minibatch.scale
        self._optimiser.step()
        self._num_steps += 1
        self._version += 1
        return loss

    def _report(self, loss_sum: float, samples: int, seconds: float) -> None:
        self._events.record(
            "progress",
            replica=0,
            samples=self._ledger.num_counted,
            replica_samples=self._ledger.num_counted,
            loss=loss_sum / samples,
            images_per_s=samples / seconds,
            staleness={},
            waiting_s=0.0,
        )

    def _save(self, *, final: bool) -> Checkpoint:
        require_finite_parameters(self._parameters, self._num_steps)
        id = checkpoint.next_id(self._checkpoints)
        folder = checkpoint.partial_folder(self._checkpoints, id)
        slots = slots_of(self._optimiser, self._parameters, self._config.rule)
        digests = checkpoint.write_shard(folder, 0, {"values": self._parameters, **slots})
        with self._ledger_lock:
            counted = self._ledger.counted()
        written = checkpoint.commit(
            self._checkpoints,
            id,
            identity=self._identity,
            shards=[ShardFile(self._version, digests)],
            counted=counted,
            num_steps=self._num_steps,
            elapsed_s=self._events.elapsed_s,
            final=final,
            keep=self._config.keep_checkpoints,
        )
        self._events.record("checkpoint", samples=written.num_counted, path=str(written.folder))
        return written

    def _validate(self, written: Checkpoint) -> None:
        metrics = self._problem.validate(self._parameters)
        epoch = written.num_counted / self._epoch_size
        samples = written.num_counted
        self._events.record("validation", samples=samples, epoch=round(epoch, 4), metrics=metrics)
