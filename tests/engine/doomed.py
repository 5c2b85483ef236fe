"""A whole training, cluster and all, that kills its own process after some checkpoints.

python -m tests.engine.doomed FOLDER [DURABILITY ROOT [NUMBER]]

ROOT is where the folders of runs lie: no other run looks there. It dies at the NUMBER-th progress;
0: it waits to be killed.
"""

import functools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from engine import memory_folder
from engine.config import ClusterConfig, DownpourConfig
from engine.dask_train import train_downpour
from tasks.cluster import open_cluster
from tests.engine.fuses import slow
from tests.engine.rows import Meddler, When
from tests.engine.waiting import survivors

CLUSTER = ClusterConfig(
    num_replicas=2, num_shards=2, heartbeat_interval_s=0.2, heartbeat_timeout_s=2.0
)
CONFIG = DownpourConfig(
    minibatch_size=4,
    num_epochs=20,
    checkpoint_every_s=0.2,
    max_checkpoint_share=1.0,
    validate_every_epochs=99.0,
)
#: Nothing but the log has what was done since the beginning.
POWER = replace(CONFIG, durability="power", checkpoint_every_s=3600.0)
IDENTITY = {"data": "points"}
FACTORY = functools.partial(slow, pause_s=0.005)


def end() -> None:
    """Kill this very process."""
    os.kill(os.getpid(), signal.SIGKILL)


def lose_power() -> None:
    """Nobody is left who could save what is in memory."""
    for pid in survivors(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    end()


def main(
    folder: Path, durability: str = "process", root: str | None = None, number: str = "3"
) -> None:
    if root is not None:
        memory_folder.root = lambda: Path(root)
    config = POWER if durability == "power" else CONFIG
    die = lose_power if durability == "power" else end
    killer = Meddler(When("progress", int(number), lambda row: die()))
    with open_cluster(CLUSTER) as client:
        train_downpour(client, FACTORY, config, CLUSTER, folder, IDENTITY, killer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
