"""The Prefect task that trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from data.manifest import read_manifest
from engine.algorithm import AlgorithmConfig
from engine.config import ClusterConfig, DownpourConfig, SynchronousConfig
from engine.dask_phases import train_phases
from engine.dask_sandblaster import train_sandblaster
from engine.dask_train import train_downpour
from engine.events import Listener
from engine.result import TrainingResult
from engine.sandblaster.config import SandblasterConfig
from engine.single import train_single
from engine.synchronous.train import train_synchronous
from tasks import network
from tasks.artifacts import artifact_key
from tasks.cluster import open_cluster
from tasks.network import save_network
from tasks.problem import ImageProblemFactory
from tasks.progress import progress_shown

WEIGHTS = "weights.safetensors"


class DivergedError(ValueError):
    """The parameters have left the range in which the network computes anything."""


@task(task_run_name="train-{folder.name}", cache_policy=NO_CACHE)
def train_network(
    problem: ImageProblemFactory,
    algorithm: AlgorithmConfig,
    cluster: ClusterConfig,
    folder: Path,
    made_from: Mapping[str, str],
) -> Path:
    """Train, or go on from the newest checkpoint, or do nothing when the weights are there.

    To be called in the main thread of the flow: cancelling raises there; a checkpoint is written
    and the cluster closed on the way out, within ten seconds in all.

    Args:
        folder: of the run.
        made_from: what decides the weights; they are made again when it has changed.

    Returns:
        The file of the trained weights.
    """
    weights, logger = folder / WEIGHTS, get_run_logger()
    if is_trained(weights, made_from):
        logger.info("%s is there already: nothing to train", weights)
        return weights
    manifest = read_manifest(problem.staged)
    identity = {**made_from, "class_names": ", ".join(manifest.class_names)}
    with progress_shown(logger, artifact_key(folder.name)) as listen, _divergence_explained():
        result = _train(problem, algorithm, cluster, folder / "training", identity, listen)
    save_network(weights, result, problem().layout, problem.model, manifest, made_from)
    logger.info("%s: %d samples in %.1f s", weights, result.num_samples, result.elapsed_s)
    return weights


def is_trained(weights: Path, made_from: Mapping[str, str]) -> bool:
    """True when the weights are there and were made from the same."""
    return weights.exists() and network.made_from(weights) == dict(made_from)


@contextmanager
def _divergence_explained() -> Iterator[None]:
    try:
        yield
    except FloatingPointError as error:
        raise DivergedError(
            f"the training has diverged ({error}): choose a smaller rate, "
            "algorithm.rule.learning_rate or algorithm.rule.gamma"
        ) from error


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Give torch its threads back: validation beside busy replicas leaves it with one."""
    num_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _train(
    problem: ImageProblemFactory,
    algorithm: AlgorithmConfig,
    cluster: ClusterConfig,
    folder: Path,
    identity: Mapping[str, str],
    listen: Listener,
) -> TrainingResult:
    if isinstance(algorithm, DownpourConfig):
        with open_cluster(cluster) as client, _threads_kept():
            return train_downpour(client, problem, algorithm, cluster, folder, identity, listen)
    if isinstance(algorithm, SandblasterConfig):
        train = train_phases if algorithm.phases else train_sandblaster
        with open_cluster(cluster) as client, _threads_kept():
            return train(client, problem, algorithm, cluster, folder, identity, listen)
    if isinstance(algorithm, SynchronousConfig):
        with open_cluster(cluster, with_shards=False) as client, _threads_kept():
            return train_synchronous(client, problem, algorithm, cluster, folder, identity, listen)
    return train_single(problem, algorithm, folder, identity, listen)
