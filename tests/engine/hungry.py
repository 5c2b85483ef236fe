"""A whole training in a cgroup whose memory is limited; one replica takes more than there is.

python -m tests.engine.hungry FOLDER CGROUP
"""

import functools
import os
import sys
from dataclasses import replace
from pathlib import Path

from engine.config import DownpourConfig
from engine.dask_train import train_downpour
from tasks.cluster import open_cluster
from tests.engine.doomed import CLUSTER, CONFIG
from tests.engine.fuses import greedy

SETTINGS = DownpourConfig(minibatch_size=CONFIG.minibatch_size, num_epochs=CONFIG.num_epochs)


def main(folder: Path, cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    factory = functools.partial(greedy, str(folder), pause_s=0.002)
    cluster = replace(CLUSTER, heartbeat_timeout_s=60.0)  # who takes memory may be quiet for long
    with open_cluster(cluster) as client:
        train_downpour(client, factory, SETTINGS, cluster, folder, {})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
