"""A whole training, cluster and all, that kills its own process after some checkpoints.

python -m tests.engine.doomed FOLDER [DURABILITY]
"""

import functools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from engine.config import ClusterConfig, DownpourConfig
from engine.dask_train import train_downpour
from tasks.cluster import open_cluster
from tests.engine.fuses import slow
from tests.engine.rows import Meddler, When

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


def main(folder: Path, durability: str = "process") -> None:
    config = POWER if durability == "power" else CONFIG
    killer = Meddler(When("progress", 3, lambda row: os.kill(os.getpid(), signal.SIGKILL)))
    with open_cluster(CLUSTER) as client:
        train_downpour(client, FACTORY, config, CLUSTER, folder, IDENTITY, killer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
