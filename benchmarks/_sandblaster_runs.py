"""Sandblaster on the digits, and what its rows tell of where the time went."""

import tempfile
from pathlib import Path
from typing import Any

from distributed import Client

from benchmarks._batch_rivals import Trace
from benchmarks._batch_subjects import digits_problem
from engine.batch.config import LbfgsConfig, WolfeConfig
from engine.config import ClusterConfig, SgdConfig
from engine.dask_sandblaster import train_sandblaster
from engine.problem import ProblemFactory
from engine.sandblaster.config import SandblasterConfig
from engine.torch_problem import TorchProblem

Row = dict[str, Any]
MINIBATCH, HISTORY = 50, 10


def lbfgs(num_iterations: int, history_length: int) -> LbfgsConfig:
    """L-BFGS that runs for so many iterations, with torch's constants of the line search."""
    return LbfgsConfig(
        max_iterations=num_iterations,
        history_length=history_length,
        gradient_tolerance=0.0,
        loss_tolerance=0.0,
        line_search=WolfeConfig(c1=1e-4, c2=0.9),
    )


def half_the_digits() -> TorchProblem:
    """The digits that lie in the first half of the units."""
    problem = digits_problem()
    problem.unit_sizes = problem.unit_sizes[: len(problem.unit_sizes) // 2]
    return problem


def train_ours(
    client: Client, cluster: ClusterConfig, factory: ProblemFactory, num_iterations: int
) -> list[Row]:
    """The rows of one run."""
    config = SandblasterConfig(
        minibatch_size=MINIBATCH,
        num_epochs=10_000,
        rule=SgdConfig(),
        optimiser=lbfgs(num_iterations, HISTORY),
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        train_sandblaster(client, factory, config, cluster, path, {}, rows.append)
    return rows


def our_trace(rows: list[Row]) -> Trace:
    """The iterates after the initial point."""
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    start = evaluations[0]["time_s"]
    taken = [row for row in rows if row["event"] == "iteration" and row["iteration"] > 0]
    seconds = [row["time_s"] - start for row in taken]
    return Trace(seconds, [row["loss"] for row in taken], len(evaluations))


def overhead(rows: list[Row]) -> float:
    """Share of the time between the second and the last iterate when no replica computed for it.

    In the first iteration processes are still taking their memory and files.
    A sample computed twice counts once: the other time is lost as well.
    """
    taken = [row for row in rows if row["event"] == "iteration"]
    first, last = taken[1]["time_s"], taken[-1]["time_s"]
    within = [r for r in rows if r["event"] == "evaluation" and first < r["time_s"] <= last]
    replicas = {name for row in within for name in row["computing_s"]}
    computing_s = sum(sum(row["computing_s"].values()) for row in within)
    computed = sum(sum(row["samples"].values()) for row in within)
    computing_s *= sum(row["batch_samples"] for row in within) / computed
    return float(1 - computing_s / (len(replicas) * (last - first)))
