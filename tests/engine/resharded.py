"""Lives of a deterministic training, each with another number of shards, each but the last killed.

    python -m tests.engine.resharded FOLDER

One replica, so that the order of updates is that of the samples. As in `tests.engine.deterministic`
a life is a forked process with everything that belongs to it.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import replica_role, training
from engine.checkpoint import Checkpoint
from engine.config import ClusterConfig, DownpourConfig, RuleConfig, ScheduleConfig
from engine.problem import ProblemFactory
from engine.rules import make_rule
from engine.torch_problem import TorchProblem
from tests.engine.problems import NUM_SAMPLES, RULES, classifier, rule_name
from tests.engine.rows import Listener, Row
from tests.engine.threaded import ThreadedRun
from tests.kills import was_killed

#: Every number from 1 to 5 followed by every one, itself included.
NUMBERS = (1, 1, 2, 1, 3, 1, 4, 1, 5, 2, 2, 3, 2, 4, 2, 5, 3, 3, 4, 3, 5, 4, 4, 5, 5, 1)
#: With the log of pushes, which alone has what was done since the beginning.
FEW_NUMBERS = (2, 3, 1, 5, 4)
CONFIG = DownpourConfig(
    minibatch_size=4,
    num_epochs=40,
    schedule=ScheduleConfig(drop_at=(0.3, 0.617), drop_by=(2.0, 3.0), anneal="cosine"),
    validate_every_epochs=99.0,
    checkpoint_every_s=3600.0,
    max_checkpoint_share=1.0,
)


def settings(rule: RuleConfig) -> DownpourConfig:
    """A run by this rule, with a checkpoint at its beginning and end only."""
    return replace(CONFIG, rule=rule)


def live(
    folder: Path,
    config: DownpourConfig,
    num_shards: int,
    heard: Listener,
    factory: ProblemFactory = classifier,
) -> Checkpoint:
    """Begin or go on, to the end."""
    cluster = ClusterConfig(
        num_replicas=1, num_shards=num_shards, allow_resharding=True, heartbeat_timeout_s=600
    )
    run = ThreadedRun(folder, config, cluster, heard, factory=factory)
    try:
        run.start_all()
        final = run.drive()
    finally:
        run.close()
    assert run.all_end()
    assert final is not None
    return final


class DiesAtCheckpoint(Listener):
    """Kills its own process at a checkpoint with new samples, where an epoch has not ended."""

    def __call__(self, row: Row) -> None:
        super().__call__(row)
        if row["event"] != "checkpoint" or not row["samples"] % NUM_SAMPLES:
            return
        if row["samples"] > self.of("start")[0]["resumed_at_samples"]:
            os.kill(os.getpid(), signal.SIGKILL)


class DiesAtGradient(TorchProblem):
    """Kills its own process in its 38th gradient, when the log has the 36th or the 37th, too.

    An epoch takes 31 updates: four such lives end 5 to 24 updates after the beginning of one,
    whichever of the two was logged.
    """

    _num_gradients = 0

    def gradient_(self, parameters: torch.Tensor, payload: Any, grad: torch.Tensor) -> float:
        self._num_gradients += 1
        if self._num_gradients == 38:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gradient_(parameters, payload, grad)


def mortal_classifier() -> TorchProblem:
    """The classifier whose life is short."""
    return classifier(kind=DiesAtGradient)


def live_briefly(folder: Path, config: DownpourConfig, num_shards: int) -> None:
    """Begin or go on, until killed."""
    if config.durability == "power":
        live(folder, config, num_shards, Listener(), mortal_classifier)
    else:
        live(folder, config, num_shards, DiesAtCheckpoint())


def lives(folder: Path, config: DownpourConfig, numbers: Sequence[int]) -> None:
    """One life after another."""
    for life, num_shards in enumerate(numbers):
        last = life == len(numbers) - 1
        if not (pid := os.fork()):
            if last:
                live(folder, config, num_shards, Listener())
            else:
                live_briefly(folder, config, num_shards)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not last:
            was_killed("flow", os.waitstatus_to_exitcode(status))
        elif status:
            sys.exit(f"the last life ended with status {status}")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    replica_role._REPORT_S, training._TICK_S = 0.02, 0.002  # there is more to tell, and sooner
    for rule in RULES:
        make_rule(rule).compile(np.dtype(np.float32))  # once for all that are forked
        lives(folder / rule_name(rule), replace(settings(rule), checkpoint_every_s=0.002), NUMBERS)
    lives(folder / "power", replace(settings(RULES[-1]), durability="power"), FEW_NUMBERS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
