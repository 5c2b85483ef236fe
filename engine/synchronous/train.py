"""Synchronous training on Dask workers: starts the ranks and drives them to the end."""

from collections.abc import Mapping
from pathlib import Path

import distributed

from engine.config import LOOPBACK, ClusterConfig, SynchronousConfig
from engine.dask_session import Session
from engine.events import EventLog, Listener, ignore
from engine.interruptible import interruptible
from engine.problem import ProblemFactory, build
from engine.result import TrainingResult
from engine.start import full_identity, resume_or_begin
from engine.synchronous.driver import SynchronousDriver
from engine.synchronous.rank import run_rank
from engine.synchronous.spec import SynchronousSpec


def train_synchronous(
    client: distributed.Client,
    factory: ProblemFactory,
    config: SynchronousConfig,
    cluster: ClusterConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener = ignore,
) -> TrainingResult:
    """Train by torch's DistributedDataParallel, one rank for each of `cluster.num_replicas`.

    Each step every rank computes the gradient of a mini-batch of its own; all apply the mean. For
    arguments, files and errors see `engine.dask_train.train_downpour`; the workers need the
    resources "replica-0" and so on only.
    """
    if cluster.host not in LOOPBACK:
        raise ValueError(
            f"cluster.host={cluster.host}: gloo and nccl have no TLS, so synchronous training "
            f"stays on loopback ({', '.join(LOOPBACK)})"
        )
    problem = build(factory)
    whole = slice(0, problem.layout.size)
    identity = full_identity(identity, problem, 1, config.name)
    start = resume_or_begin(
        folder / "checkpoints", identity, problem, config.rule, [whole], config.start_from
    )
    if start.final:
        return TrainingResult.of(start, already_complete=True)
    with Session(client, cluster) as session:
        server = session.server
        spec = SynchronousSpec(
            driver=server.address,
            token=server.token,
            host=cluster.host,
            meeting=session.memory,
            checkpoints=folder / "checkpoints",
            num_ranks=cluster.num_replicas,
            config=config,
            heartbeat_interval_s=cluster.heartbeat_interval_s,
            tls=cluster.tls,
        )
        events = EventLog(folder / "events.jsonl", listen, start.elapsed_s)
        driver = SynchronousDriver(server, spec, problem, cluster, identity, start, events)
        try:
            for rank in range(spec.num_ranks):
                session.start(f"replica-{rank}", rank_task, spec, rank, factory)
            with session.endings_added():
                final = interruptible(lambda: driver.drive(session.check_roles), driver.stop)
            assert final is not None  # an interruption leaves by its exception
        finally:
            driver.close()
            events.close()
    return TrainingResult.of(final, already_complete=False)


def rank_task(spec: SynchronousSpec, rank: int, factory: ProblemFactory) -> None:
    """`run_rank` as a Dask task."""
    run_rank(spec, rank, factory, distributed.get_worker().address)
