"""Downpour SGD on Dask workers: starts the roles, and carries out the coordinator's decisions.

Call it in the main thread, where signals arrive: an interrupted run writes one more checkpoint.
Whatever ends it, the roles are told to stop and the memory files are removed.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import distributed

from engine import memory
from engine.config import ClusterConfig, DownpourConfig, RuleConfig
from engine.coordinator_server import CoordinatorServer
from engine.events import EventLog, Listener, ignore
from engine.interruptible import interruptible
from engine.problem import ProblemFactory
from engine.replica_role import run_replica
from engine.result import TrainingResult
from engine.roles import await_end, raise_errors, start_role
from engine.run_spec import RunSpec
from engine.salvage import salvage
from engine.shard_role import serve_shard
from engine.start import full_identity, resume_or_begin
from engine.training import Training

Roles = list["distributed.Future[None]"]


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
            newest checkpoint there, and returns at once when the final one is there.
        identity: what makes this run this run; a checkpoint that differs is refused.

    Raises:
        CheckpointMismatchError: `folder` holds a run of another identity.
        RunFailedError: a role was lost more than `cluster.max_restarts` times.
    """
    problem = factory()
    slices = problem.layout.slices(cluster.num_shards)
    identity = full_identity(identity, problem, cluster.num_shards, config.name)
    salvage(folder / "checkpoints", identity, config, slices, problem.layout.dtype)
    start = resume_or_begin(
        folder / "checkpoints", identity, problem, config.rule, slices, config.start_from
    )
    if start.final:
        return TrainingResult.of(start, already_complete=True)
    server = CoordinatorServer(cluster.host, cluster.tls)
    run = RunSpec(
        coordinator=server.address,
        token=server.token,
        host=cluster.host,
        memory=memory.create_folder(server.token),
        checkpoints=folder / "checkpoints",
        size=problem.layout.size,
        dtype=problem.layout.dtype,
        slices=slices,
        heartbeat_interval_s=cluster.heartbeat_interval_s,
        tls=cluster.tls,
        record=folder / "record" / start.folder.name if config.record else None,
    )
    events = EventLog(folder / "events.jsonl", listen, start.elapsed_s)
    training = Training(server, run, problem, config, cluster, identity, start, events)
    try:
        roles = _start_roles(client, run, factory, config, cluster)
        final = interruptible(lambda: training.drive(lambda: raise_errors(roles)), training.stop)
        assert final is not None  # an interruption leaves by its exception
        await_end(roles)
    finally:
        training.close()
        shutil.rmtree(run.memory, ignore_errors=True)
        events.close()
    return TrainingResult.of(final, already_complete=False)


def _start_roles(
    client: distributed.Client,
    run: RunSpec,
    factory: ProblemFactory,
    config: DownpourConfig,
    cluster: ClusterConfig,
) -> Roles:
    """The tasks of all shards and all replicas."""
    name = run.token[:8]
    replicas = [
        start_role(
            client,
            f"replica-{index}",
            f"replica-{index}-{name}",
            replica_task,
            run,
            index,
            factory,
            config,
        )
        for index in range(cluster.num_replicas)
    ]
    return start_shards(client, run, config.rule, config.max_staleness) + replicas


def start_shards(
    client: distributed.Client, run: RunSpec, rule: RuleConfig, bound: int | None
) -> Roles:
    """The tasks of all shards; `bound` is on the staleness of a push, None: none."""
    return [
        start_role(
            client,
            f"shard-{index}",
            f"shard-{index}-{run.token[:8]}",
            shard_task,
            run,
            index,
            rule,
            bound,
        )
        for index in range(len(run.slices))
    ]


def shard_task(run: RunSpec, index: int, rule: RuleConfig, bound: int | None) -> None:
    """`serve_shard` as a Dask task."""
    serve_shard(run, index, rule, bound, distributed.get_worker().address)


def replica_task(run: RunSpec, index: int, factory: ProblemFactory, config: DownpourConfig) -> None:
    """`run_replica` as a Dask task."""
    run_replica(run, index, factory, config, distributed.get_worker().address)
