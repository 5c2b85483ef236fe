"""A whole Sandblaster run, cluster and all, that kills its own process in a line search.

python -m tests.engine.sandblaster.doomed FOLDER
"""

import functools
import os
import signal
import sys
from pathlib import Path

from engine.config import ClusterConfig, SgdConfig
from engine.dask_sandblaster import train_sandblaster
from engine.sandblaster.config import SandblasterConfig
from tasks.cluster import open_cluster
from tests.engine.fuses import slow
from tests.engine.rows import Meddler, When

CLUSTER = ClusterConfig(
    num_replicas=2, num_shards=2, heartbeat_interval_s=0.2, heartbeat_timeout_s=2.0
)
CONFIG = SandblasterConfig(
    minibatch_size=4, num_epochs=12, rule=SgdConfig(), deterministic=True, order_window=8
)
IDENTITY = {"data": "points"}
FACTORY = functools.partial(slow, pause_s=0.001)
#: An evaluation is told of before its iteration is committed, so this is inside a line search.
DEADLY_EVALUATION = 6


def main(folder: Path) -> None:
    die = When("evaluation", DEADLY_EVALUATION, lambda row: os.kill(os.getpid(), signal.SIGKILL))
    with open_cluster(CLUSTER) as client:
        train_sandblaster(client, FACTORY, CONFIG, CLUSTER, folder, IDENTITY, Meddler(die))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
