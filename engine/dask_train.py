"""Downpour SGD on Dask workers: starts the roles, and carries out the coordinator's decisions.

Call it in the main thread, where signals arrive: an interrupted run writes one more checkpoint.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import distributed

from engine.checkpoint import sync
from engine.config import ClusterConfig, DownpourConfig
from engine.dask_session import Session
from engine.events import EventLog, Listener, ignore
from engine.interruptible import interruptible
from engine.partition import shards_by_replica
from engine.problem import ProblemFactory, build
from engine.replica_role import run_replica
from engine.result import TrainingResult
from engine.run_spec import RunSpec
from engine.salvage import remove_logs, salvage_log
from engine.start import full_identity, resume_or_begin
from engine.training import Training


def train_downpour(
    client: distributed.Client,
    factory: ProblemFactory,
    config: DownpourConfig,
    cluster: ClusterConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener = ignore,
) -> TrainingResult:
    """Train by Downpour SGD (Dean et al. 2012, 4.1) until every sample of every epoch counts.

    Args:
        client: of a cluster whose workers offer the resources "replica-0", "shard-0" and so on,
            one each.
        factory: builds the problem; called here, and in each replica's process.
        folder: of the run; gets `checkpoints/` and `events.jsonl`. Training goes on from the
            newest checkpoint there, and returns at once when the final one is there. With
            `cluster.allow_resharding` that may be one of another number of shards.
        identity: what makes this run this run; a checkpoint that differs is refused. The engine
            adds the parameters' layout, the algorithm and the number of shards, but no setting:
            put in what must not change, or `folder` goes on, or is finished, with other ones.

    Raises:
        CheckpointMismatchError: `folder` holds a run of another identity.
        RunFailedError: a role was lost more than `cluster.max_restarts` times.
    """
    with Session(client, cluster) as session:
        return downpour_phase(session, factory, config, folder, identity, listen)


def downpour_phase(
    session: Session,
    factory: ProblemFactory,
    config: DownpourConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener,
) -> TrainingResult:
    """`train_downpour` in a session whose shards may have served before, and go on to serve."""
    problem, cluster = build(factory), session.cluster
    layout = problem.layout
    slices = layout.slices(cluster.num_shards)
    shards_of = shards_by_replica(problem, cluster.num_replicas, slices)
    identity = full_identity(identity, problem, cluster.num_shards, config.name)
    checkpoints, logs = folder / "checkpoints", folder / "log"
    salvage_log(logs)
    start = resume_or_begin(
        checkpoints,
        identity,
        problem,
        config.rule,
        slices,
        config.start_from,
        resharding=cluster.allow_resharding,
    )
    if start.final:
        return TrainingResult.of(start, already_complete=True)
    record = folder / "record" / start.folder.name if config.record else None
    run = session.begin_phase(layout.size, layout.dtype, slices, checkpoints, record)
    run = replace(run, shards_of=shards_of)
    if config.durability == "power":
        run = replace(run, log=logs, log_bytes=config.log_bytes)
        logs.mkdir()
        sync(folder)
    events = EventLog(folder / "events.jsonl", listen, start.elapsed_s)
    training = Training(
        session.server, run, problem, config, cluster, identity, start, events, session.seats
    )
    try:
        session.start_shards(run, config.rule, config.max_staleness, config.max_push_norm)
        for index in range(cluster.num_replicas):
            session.start(f"replica-{index}", replica_task, run, index, factory, config)
        with session.endings_told(training.ended):
            final = interruptible(lambda: training.drive(session.check_roles), training.stop)
        assert final is not None  # an interruption leaves by its exception
        remove_logs(logs)  # the final checkpoint contains them
    finally:
        training.close()
        events.close()
    return TrainingResult.of(final, already_complete=False)


def replica_task(run: RunSpec, index: int, factory: ProblemFactory, config: DownpourConfig) -> None:
    """`run_replica` as a Dask task."""
    run_replica(run, index, factory, config, distributed.get_worker().address)
