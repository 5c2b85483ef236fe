"""A run whose checkpoints lie on a really full disk for a while.

    unshare -rm python -m tests.engine.full_disk FOLDER

In a mount namespace of its own, so that the small disk goes away with this process.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint
from engine.config import DownpourConfig
from tests.engine.problems import NUM_SAMPLES
from tests.engine.rows import Meddler, Row, When
from tests.engine.threaded import latest, threaded_run

NUM_EPOCHS = 40
CONFIG = DownpourConfig(
    minibatch_size=4,
    num_epochs=NUM_EPOCHS,
    validate_every_epochs=99.0,
    checkpoint_every_s=0.1,
    max_checkpoint_share=1.0,
)


def fill(ballast: Path) -> None:
    """Take all the room there is."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            return


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    disk = folder / "checkpoints"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", disk], check=True)
    good: list[Checkpoint] = []

    def fill_up(row: Row) -> None:
        good.append(latest(folder))
        fill(disk / "ballast")

    def look(row: Row) -> None:
        assert checkpoint.newest(disk, good[0].identity) == good[0]
        assert list(disk.glob("*/shard-*")) == list(good[0].folder.parent.glob("0*[0-9]/shard-*"))

    heard = Meddler(
        When("checkpoint", 2, fill_up),
        When("checkpoint_failed", None, look),
        When("checkpoint_failed", 2, lambda row: (disk / "ballast").unlink()),
    )
    with threaded_run(folder, CONFIG, heard) as run:
        run.start_all()
        final = run.drive()
    assert final is not None
    assert final.num_counted == NUM_EPOCHS * NUM_SAMPLES
    told = ("checkpoint", "checkpoint_failed")
    events = [row["event"] for row in heard if row["event"] in told]
    assert events[:5] == ["checkpoint"] * 2 + ["checkpoint_failed"] * 2 + ["checkpoint"], events
    assert not list(disk.glob("*.partial"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # the roles' threads may still be in torch, which aborts a process that ends then
