"""A whole Sandblaster run, cluster and all, that kills its own process in a line search.

python -m tests.engine.sandblaster.doomed FOLDER OPTIMISER
"""

import functools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from engine.batch.config import MultibatchConfig
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
SAMPLED = MultibatchConfig(batch_size=50, overlap=0.3)
#: By the name of the optimiser. Small batches take so many epochs because a run must be longer
#: than it takes to notice a frozen replica.
CONFIGS = {"lbfgs": CONFIG, "multibatch": replace(CONFIG, optimiser=SAMPLED, num_epochs=36)}
IDENTITY = {"data": "points"}
FACTORY = functools.partial(slow, pause_s=0.001)
#: An evaluation is told of before its iteration is committed, so this is inside a line search.
DEADLY_EVALUATION = {"lbfgs": 6, "multibatch": 13}


def main(folder: Path, name: str) -> None:
    number = DEADLY_EVALUATION[name]
    die = When("evaluation", number, lambda row: os.kill(os.getpid(), signal.SIGKILL))
    with open_cluster(CLUSTER) as client:
        train_sandblaster(client, FACTORY, CONFIGS[name], CLUSTER, folder, IDENTITY, Meddler(die))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
