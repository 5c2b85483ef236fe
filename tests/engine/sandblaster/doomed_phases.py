"""A run of three phases, cluster and all, that kills its own process in one of them.

python -m tests.engine.sandblaster.doomed_phases FOLDER PHASE
"""

import functools
import os
import signal
import sys
from pathlib import Path

from engine.config import AdagradConfig
from engine.dask_phases import train_phases
from engine.sandblaster.config import PhaseConfig, SandblasterConfig
from tasks.cluster import open_cluster
from tests.engine.fuses import slow
from tests.engine.rows import Listener, Row
from tests.engine.sandblaster.doomed import CLUSTER

CONFIG = SandblasterConfig(
    minibatch_size=4,
    num_epochs=12,
    rule=AdagradConfig(gamma=0.05),
    phases=(
        PhaseConfig(algorithm="downpour", share=0.25),
        PhaseConfig(algorithm="sandblaster", share=0.5),
        PhaseConfig(algorithm="downpour", share=0.25),
    ),
)
FACTORY = functools.partial(slow, pause_s=0.02)


class InPhase(Listener):
    """Does something once, at the first sign of work in one phase or in each."""

    def __init__(self, *phases: int) -> None:
        self._phases = phases
        self._now = -1

    def __call__(self, row: Row) -> None:
        super().__call__(row)
        if row["event"] == "phase":
            self._now = row["phase"]
        work = row["event"] == "progress" or row.get("iteration") == 1
        if work and self._now in self._phases:
            self._now = -1
            self.act()

    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, phase: int) -> None:
    with open_cluster(CLUSTER) as client:
        train_phases(client, FACTORY, CONFIG, CLUSTER, folder, {}, InPhase(phase))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
