"""Sandblaster on Dask workers: starts the roles, and drives an optimiser on their vectors.

Call it in the main thread, where signals arrive. This process never holds a vector until the end:
the problem is built on the workers only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import distributed
import torch

from engine.checkpoint import Checkpoint
from engine.config import ClusterConfig
from engine.dask_session import Session
from engine.events import EventLog, Listener, ignore
from engine.problem import ProblemFactory, build
from engine.result import TrainingResult
from engine.run_spec import RunSpec
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.coordinator import Coordinator
from engine.sandblaster.driver import Driver
from engine.sandblaster.plan import planned_portions, sized
from engine.sandblaster.record import IterationRecord, read_record
from engine.sandblaster.replica_role import run_replica
from engine.sandblaster.resharding import reshard_record
from engine.sandblaster.training import Training
from engine.start import full_identity, resume_or_begin


class _Facts(NamedTuple):
    """What the coordinator must know of the problem; none of it is a vector."""

    size: int
    dtype: torch.dtype
    slices: tuple[slice, ...]
    unit_sizes: tuple[int, ...]
    identity: dict[str, str]
    start: Checkpoint


def train_sandblaster(
    client: distributed.Client,
    factory: ProblemFactory,
    config: SandblasterConfig,
    cluster: ClusterConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener = ignore,
) -> TrainingResult:
    """Minimise the loss over the whole data by a batch optimiser (Dean et al. 2012, 4.2).

    Args:
        client: of a cluster as `train_downpour` wants it.
        factory: builds the problem, in the replicas' processes.
        folder: of the run; gets `records/`, `checkpoints/` and `events.jsonl`. The run goes on
            from the newest record there, and returns at once when the final checkpoint is there.
            With `cluster.allow_resharding` that may be one of another number of shards.
        identity: what makes this run this run; a record that differs is refused.

    Raises:
        CheckpointMismatchError: `folder` holds a run of another identity.
        RunFailedError: a role was lost more than `cluster.max_restarts` times.
    """
    with Session(client, cluster) as session:
        return sandblaster_phase(session, factory, config, folder, identity, listen)


def sandblaster_phase(
    session: Session,
    factory: ProblemFactory,
    config: SandblasterConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener,
) -> TrainingResult:
    """`train_sandblaster` in a session whose shards may have served before, and go on to serve."""
    cluster = session.cluster
    facts = session.ask_replica(_look_at, factory, config, cluster, folder, dict(identity))
    config = sized(config, sum(facts.unit_sizes))
    if facts.start.final:
        return TrainingResult.of(facts.start, already_complete=True)
    record = read_record(folder / "records", facts.identity)
    epoch = session.next_epoch(record.epoch if record else 0)
    run = session.begin_phase(facts.size, facts.dtype, facts.slices, folder / "checkpoints")
    events = EventLog(folder / "events.jsonl", listen, record.elapsed_s if record else 0.0)
    try:
        _record_start(events, facts, config, cluster, record)
        session.start_shards(run, config.rule, None)
        for index in range(cluster.num_replicas):
            session.start(f"replica-{index}", sandblaster_task, run, index, factory, config)
        coordinator = Coordinator(
            planned_portions(facts.unit_sizes, config),
            config,
            cluster,
            checkpoint=str(facts.start.folder),
            epoch=epoch,
            seats=session.seats,
        )
        driver = Driver(session.server, run, coordinator, events, session.check_roles)
        training = Training(
            driver,
            config,
            folder,
            facts.identity,
            sum(facts.unit_sizes),
            record,
            events,
            epoch,
        )
        with session.endings_added():
            final = training.train()
    finally:
        events.close()
    return TrainingResult.of(final, already_complete=False)


def _look_at(
    factory: ProblemFactory,
    config: SandblasterConfig,
    cluster: ClusterConfig,
    folder: Path,
    identity: Mapping[str, str],
) -> _Facts:
    """On a worker: the problem's facts, and the checkpoint that the run begins with."""
    problem = build(factory)
    layout, resharding = problem.layout, cluster.allow_resharding
    slices = layout.slices(cluster.num_shards)
    whole = full_identity(identity, problem, cluster.num_shards, config.name)
    start = resume_or_begin(
        folder / "checkpoints", whole, problem, config.rule, slices, resharding=resharding
    )
    if resharding and not start.final:
        reshard_record(folder / "records", whole, layout, slices)
    return _Facts(layout.size, layout.dtype, slices, tuple(problem.unit_sizes), whole, start)


def _record_start(
    events: EventLog,
    facts: _Facts,
    config: SandblasterConfig,
    cluster: ClusterConfig,
    record: IterationRecord | None,
) -> None:
    events.record(
        "start",
        num_samples_total=config.num_epochs * sum(facts.unit_sizes),
        num_epochs=config.num_epochs,
        resumed_at_samples=record.num_samples if record else 0,
        replicas=cluster.num_replicas,
        shards=cluster.num_shards,
    )


def sandblaster_task(
    run: RunSpec, index: int, factory: ProblemFactory, config: SandblasterConfig
) -> None:
    """`run_replica` as a Dask task."""
    run_replica(run, index, factory, config, distributed.get_worker().address)
