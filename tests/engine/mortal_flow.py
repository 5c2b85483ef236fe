"""A flow with its roles in processes of their own, which kills itself at a point of its work.

python -m tests.engine.mortal_flow FOLDER POINT ROOT [LAST]

ROOT is where the folders of runs lie: no other run on this machine looks there. LAST is what it
does last: have the disk refuse any more checkpoints, or kill or stop its survivor.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import checkpoint, memory_folder
from engine.config import DownpourConfig, MomentumConfig, WarmStartConfig
from engine.rules import make_rule
from engine.warm_start import FOLDER
from tests.engine.in_processes import process_run
from tests.engine.rows import Meddler, When
from tests.engine.waiting import survivors

WARM_STEPS = 120
CONFIG = DownpourConfig(
    minibatch_size=4,
    num_epochs=12,
    rule=MomentumConfig(learning_rate=0.05),
    validate_every_epochs=99.0,
    warm_start=WarmStartConfig(steps=WARM_STEPS),
    checkpoint_every_s=0.2,
    max_checkpoint_share=1.0,
)
#: A file where checkpoints expect a folder of theirs.
OBSTACLE = "0.partial"
LAST = ("refuse", "kill", "stop")
POINTS = ("beginning", "warm start", "training", "snapshot", "final snapshot")


def die(*_: Any) -> None:
    """Kill this very process."""
    os.kill(os.getpid(), signal.SIGKILL)


def do(last: str, folder: Path) -> None:
    """What it does last but die."""
    if last == "refuse":
        (folder / "checkpoints" / OBSTACLE).write_bytes(b"")
    else:
        (survivor,) = survivors(os.getpid())
        os.kill(survivor, signal.SIGKILL if last == "kill" else signal.SIGSTOP)


def main(folder: Path, point: str, root: Path, last: str | None = None) -> None:
    memory_folder.root = lambda: root
    torch.set_num_threads(1)
    make_rule(CONFIG.rule).compile(np.dtype(np.float32))  # before the first progress is due
    when = "start" if last == "refuse" else "progress"
    reactions = [When(when, 1, lambda row: do(last, folder))] if last else []
    if point == "warm start":
        reactions += [When("progress", 1, die)]
    elif point == "training":
        reactions += [When("warm_start_over", 1, lambda row: after_warm_start.append(row))]
        reactions += [When("progress", None, lambda row: die() if after_warm_start else None)]
    else:
        arm_commit(folder, final=point == "final snapshot")
    after_warm_start: list[Any] = []
    heard = Meddler(*reactions)
    # What it acknowledges no checkpoint may have, where the disk is to refuse the survivor's.
    config = replace(CONFIG, checkpoint_every_s=3600.0) if last == "refuse" else CONFIG
    with process_run(folder, config, heard, context="fork", salvaging=True) as run:
        if point == "beginning":
            die()
        run.start_all()
        run.drive_beside(lambda: None)


def arm_commit(folder: Path, *, final: bool) -> None:
    """Die once every shard has written its part, before the checkpoint is complete."""
    commit = checkpoint.commit

    def deadly(*arguments: Any, **named: Any) -> Any:
        if named["final"] == final and (folder / FOLDER).exists():
            die()
        return commit(*arguments, **named)

    checkpoint.commit = deadly


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
