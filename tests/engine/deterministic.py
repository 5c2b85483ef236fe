"""Lives of a deterministic training, each killed with everything that belongs to it.

    python -m tests.engine.deterministic FOLDER SEED

One replica with n_fetch = n_push = 1: the order of updates is that of the samples. Coordinator,
shards and replica are threads of one process, which is forked for each life, because importing
torch would take longer than it lives.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from engine import replica_role, training
from engine.checkpoint import Checkpoint
from engine.config import DownpourConfig, MomentumConfig, ScheduleConfig
from engine.rules import make_rule
from tests.engine.rows import Listener
from tests.engine.threaded import threaded_run
from tests.kills import was_killed

NUM_KILLS = 20
CONFIG = DownpourConfig(
    minibatch_size=4,
    num_epochs=25,
    rule=MomentumConfig(learning_rate=0.05),
    schedule=ScheduleConfig(drop_at=(0.3, 0.617), drop_by=(2.0, 3.0), anneal="cosine"),
    validate_every_epochs=99.0,
    checkpoint_every_s=0.01,
    max_checkpoint_share=1.0,
)


def live(folder: Path) -> Checkpoint | None:
    """Begin or go on, to the end."""
    with threaded_run(folder, CONFIG, Listener(), num_replicas=1) as run:
        run.start_all()
        return run.drive()


def num_checkpoints(folder: Path) -> int:
    """Checkpoints that this folder has seen."""
    return max((int(path.name) for path in folder.glob("checkpoints/" + "[0-9]" * 6)), default=0)


def wait_for_checkpoint(folder: Path, pid: int) -> None:
    """Return when there is one more, or the process has ended."""
    before = num_checkpoints(folder)
    while num_checkpoints(folder) == before and not os.waitid(
        os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
    ):
        time.sleep(0.001)


def main(folder: Path, seed: int) -> None:
    """Kill NUM_KILLS lives at random moments; let the last one end by itself."""
    torch.set_num_threads(1)
    replica_role._REPORT_S, training._TICK_S = 0.02, 0.002  # there is more to tell, and sooner
    make_rule(CONFIG.rule).compile(np.dtype(np.float32))  # once for all that are forked
    rng = random.Random(seed)
    for life in range(NUM_KILLS + 1):
        if not (pid := os.fork()):
            live(folder)
            os._exit(0)
        if life < NUM_KILLS:
            wait_for_checkpoint(folder, pid)
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if life < NUM_KILLS:
            was_killed("flow", os.waitstatus_to_exitcode(status))
        elif status:
            sys.exit(f"life {life} ended with status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
