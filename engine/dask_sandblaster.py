"""Sandblaster on Dask workers: starts the roles, and drives an optimiser on their vectors.

Call it in the main thread, where signals arrive: whatever ends it, the roles are told to stop and
the memory files are removed. This process never holds a vector until the end: the problem is built
on the workers only.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import distributed
import torch

from engine import memory
from engine.batch.config import MultibatchConfig
from engine.checkpoint import Checkpoint
from engine.config import ClusterConfig
from engine.coordinator_server import CoordinatorServer
from engine.dask_train import Roles, start_shards
from engine.events import EventLog, Listener, ignore
from engine.problem import ProblemFactory
from engine.result import TrainingResult
from engine.roles import await_end, raise_errors, start_role
from engine.run_spec import RunSpec
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.coordinator import Coordinator
from engine.sandblaster.driver import Driver
from engine.sandblaster.portions import cut_data
from engine.sandblaster.record import IterationRecord, read_record
from engine.sandblaster.replica_role import run_replica
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
        identity: what makes this run this run; a record that differs is refused.

    Raises:
        CheckpointMismatchError: `folder` holds a run of another identity.
        RunFailedError: a role was lost more than `cluster.max_restarts` times.
    """
    facts: _Facts = client.submit(
        _look_at,
        factory,
        config,
        cluster.num_shards,
        folder,
        dict(identity),
        resources={"replica-0": 1},
        pure=False,
    ).result()
    _check_size(config, sum(facts.unit_sizes))
    if facts.start.final:
        return TrainingResult.of(facts.start, already_complete=True)
    record = read_record(folder / "records", facts.identity)
    server = CoordinatorServer(cluster.host, cluster.tls)
    run = RunSpec(
        coordinator=server.address,
        token=server.token,
        host=cluster.host,
        memory=memory.create_folder(server.token),
        checkpoints=folder / "checkpoints",
        size=facts.size,
        dtype=facts.dtype,
        slices=facts.slices,
        heartbeat_interval_s=cluster.heartbeat_interval_s,
        tls=cluster.tls,
    )
    events = EventLog(folder / "events.jsonl", listen, record.elapsed_s if record else 0.0)
    try:
        _record_start(events, facts, config, cluster, record)
        roles = _start_roles(client, run, factory, config, cluster)
        driver = _driver(server, run, facts, config, cluster, record, events, roles)
        batch_size = sum(facts.unit_sizes)
        training = Training(driver, config, folder, facts.identity, batch_size, record, events)
        final = training.train()
        await_end(roles)
    finally:
        server.close()
        shutil.rmtree(run.memory, ignore_errors=True)
        events.close()
    return TrainingResult.of(final, already_complete=False)


def _look_at(
    factory: ProblemFactory,
    config: SandblasterConfig,
    num_shards: int,
    folder: Path,
    identity: Mapping[str, str],
) -> _Facts:
    """On a worker: the problem's facts, and the checkpoint that the run begins with."""
    problem = factory()
    slices = problem.layout.slices(num_shards)
    whole = full_identity(identity, problem, num_shards, config.name)
    start = resume_or_begin(folder / "checkpoints", whole, problem, config.rule, slices)
    size, dtype = problem.layout.size, problem.layout.dtype
    return _Facts(size, dtype, slices, tuple(problem.unit_sizes), whole, start)


def _check_size(config: SandblasterConfig, num_samples: int) -> None:
    """The batches of an optimiser that draws its own must be those of this data."""
    optimiser = config.optimiser
    if isinstance(optimiser, MultibatchConfig) and optimiser.num_samples != num_samples:
        raise ValueError(
            f"optimiser.num_samples={optimiser.num_samples}, but the training data has "
            f"{num_samples} samples: set algorithm.optimiser.num_samples={num_samples}"
        )


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


def _driver(
    server: CoordinatorServer,
    run: RunSpec,
    facts: _Facts,
    config: SandblasterConfig,
    cluster: ClusterConfig,
    record: IterationRecord | None,
    events: EventLog,
    roles: Roles,
) -> Driver:
    portions = cut_data(facts.unit_sizes, config.minibatch_size * config.portion_minibatches)
    epoch = record.epoch + 1 if record else 1
    checkpoint = str(facts.start.folder)
    coordinator = Coordinator(portions, config, cluster, checkpoint=checkpoint, epoch=epoch)
    return Driver(server, run, coordinator, events, lambda: raise_errors(roles))


def _start_roles(
    client: distributed.Client,
    run: RunSpec,
    factory: ProblemFactory,
    config: SandblasterConfig,
    cluster: ClusterConfig,
) -> Roles:
    """The tasks of all shards and all replicas."""
    name = run.token[:8]
    replicas = [
        start_role(
            client,
            f"replica-{index}",
            f"replica-{index}-{name}",
            sandblaster_task,
            run,
            index,
            factory,
            config,
        )
        for index in range(cluster.num_replicas)
    ]
    return start_shards(client, run, config.rule, None) + replicas


def sandblaster_task(
    run: RunSpec, index: int, factory: ProblemFactory, config: SandblasterConfig
) -> None:
    """`run_replica` as a Dask task."""
    run_replica(run, index, factory, config, distributed.get_worker().address)
