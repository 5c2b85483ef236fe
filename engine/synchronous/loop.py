"""The steps of one rank: mean gradient, torch's own optimiser, reports and checkpoints."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint
from engine.clipping import clip_
from engine.coordinator_link import CoordinatorLink
from engine.device import device_of
from engine.draws import seed_draws, seed_of
from engine.finite import require_finite_loss, require_finite_parameters
from engine.loader import prefetched
from engine.problem import Minibatch, Problem
from engine.synchronous.averaging import Averager
from engine.synchronous.plan import Plan, Share, Step
from engine.synchronous.spec import SynchronousSpec
from engine.torch_optimiser import restore_slots, slots_of, torch_optimiser

_REPORT_S = 0.5


@dataclass
class _Tally:
    """What this rank did since its last report."""

    loss_sum: float = 0.0
    samples: int = 0
    waiting_s: float = 0.0  # for data


class RankLoop:
    """Trains one rank from a checkpoint to the end; all ranks hold the same parameters."""

    def __init__(
        self,
        spec: SynchronousSpec,
        rank: int,
        problem: Problem,
        averager: Averager,
        link: CoordinatorLink,
        start: Checkpoint,
        next_id: int,
    ) -> None:
        """Prepare the loop.

        Args:
            next_id: number of the next checkpoint, which rank 0 writes.
        """
        self._spec = spec
        self._config = spec.config
        self._rank = rank
        self._problem = problem
        self._averager = averager
        self._link = link
        self._next_id = next_id
        self._plan = Plan(problem.unit_sizes, spec.config, spec.num_ranks, start.counted)
        self._parameters = start.read_parameters().to(device_of(problem))
        self._grad = torch.empty_like(self._parameters)
        self._parameters.grad = self._grad
        self._optimiser = torch_optimiser(spec.config.rule, [self._parameters])
        self._rate = float(self._optimiser.param_groups[0]["lr"])
        self._num_steps = start.num_steps
        self._version = start.shards[0].version  # updates that the optimiser's state has seen
        if self._version:
            slots = start.read_shard(0)
            restore_slots(self._optimiser, self._parameters, spec.config.rule, slots, self._version)
        self._epoch_size = sum(problem.unit_sizes)
        self._tally = _Tally()
        self._reported = self._saved = time.monotonic()

    def run(self, ended: threading.Event, save: threading.Event) -> None:
        """Train to the end, or until `ended` is set.

        Args:
            save: asks rank 0 for a checkpoint after the next step.

        Raises:
            RuntimeError: another rank is gone.
        """
        for step, payload in self._timed(prefetched(self._reads(), self._config.prefetch)):
            if ended.is_set():
                return
            self._do(step, payload)
            self._report(last=self._plan.num_counted == self._plan.num_total)
            if self._rank == 0:
                self._save_when_due(step.num_samples, asked=save.is_set())
                save.clear()
        if self._rank == 0:
            self._save(validate=True, final=True)

    def _reads(self) -> Iterator[tuple[Step, Any]]:
        """Each step with this rank's mini-batch; without one of its own, any: its weight is 0."""
        reading: Iterator[Minibatch] = iter(())
        payload: Any = None
        for step in self._plan.steps():
            share = step.shares[self._rank]
            if share:
                if share.start == share.lease.start:
                    reading = self._problem.minibatches(share.lease, self._config.minibatch_size)
                payload = next(reading).payload
            elif payload is None:
                payload = self._borrowed(next(s for s in step.shares if s))
            yield step, payload

    def _borrowed(self, share: Share) -> Any:
        return next(self._problem.minibatches(share.lease, self._config.minibatch_size)).payload

    def _timed(self, reads: Iterator[tuple[Step, Any]]) -> Iterator[tuple[Step, Any]]:
        start = time.monotonic()
        for read in reads:
            self._tally.waiting_s += time.monotonic() - start
            yield read
            start = time.monotonic()

    def _do(self, step: Step, payload: Any) -> None:
        share = step.shares[self._rank]
        own = share.num_samples if share else 0
        weight = own / step.num_samples
        if share:
            lease = share.lease
            seed_draws(seed_of(self._config.seed, lease.epoch, lease.unit, share.start))
        loss = self._averager.gradient_(self._parameters, payload, self._grad, weight)
        require_finite_loss(loss, self._num_steps)
        clip_(self._grad, self._problem.layout, self._config.clip)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * step.scale
        self._optimiser.step()
        self._num_steps += 1
        self._version += 1
        self._plan.count(step)
        self._tally.loss_sum += loss * own
        self._tally.samples += own

    def _report(self, *, last: bool) -> None:
        now = time.monotonic()
        if not self._tally.samples or not (last or now - self._reported >= _REPORT_S):
            return
        self._link.send(
            "progress",
            samples=self._tally.samples,
            num_counted=self._plan.num_counted,
            loss_sum=self._tally.loss_sum,
            seconds=now - self._reported,
            waiting_s=self._tally.waiting_s,
        )
        self._tally, self._reported = _Tally(), now

    def _save_when_due(self, num_new: int, *, asked: bool) -> None:
        """Write a checkpoint when the driver, a validation or the clock asks for one."""
        counted = self._plan.num_counted
        if counted == self._plan.num_total:
            return
        every = self._config.validate_every_epochs * self._epoch_size
        validate = counted // every > (counted - num_new) // every
        if asked or validate or time.monotonic() - self._saved >= self._config.checkpoint_every_s:
            self._save(validate=validate, final=False)

    def _save(self, *, validate: bool, final: bool) -> None:
        require_finite_parameters(self._parameters, self._num_steps)
        folder = checkpoint.partial_folder(self._spec.checkpoints, self._next_id)
        slots = slots_of(self._optimiser, self._parameters, self._config.rule)
        try:
            digests = checkpoint.write_shard(folder, 0, {"values": self._parameters, **slots})
        except OSError as error:
            self._link.send("write_failed", reason=str(error), final=final)
        else:
            self._link.send(
                "written",
                id=self._next_id,
                digests=digests,
                num_steps=self._num_steps,
                version=self._version,
                validate=validate,
                final=final,
            )
        self._next_id += 1
        self._saved = time.monotonic()
