"""A shard on a memory file whose process is killed with SIGKILL again and again.

    python -m tests.engine.kill_storm FOLDER SEED

A client's view is kept in FOLDER/replies: a line for each reply that reached it. Forks its
processes, because importing torch for each of them would take longer than they live.
"""

import functools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from engine import memory
from engine.config import MomentumConfig
from engine.ledger import Progress
from engine.push import Push
from engine.rules import make_rule
from engine.segment import gradient_at
from engine.shard import ParameterShard
from engine.state import Location, ShardState
from tests.kills import was_killed

SIZE = 3_145_828  # no whole number of blocks; a push takes longer than all else
NUM_KILLS = 20
RULE = MomentumConfig(learning_rate=0.1, momentum=0.9)


def open_state(folder: Path) -> ShardState:
    """The shard's state in its memory file."""
    path, num_bytes = folder / "shard.state", ShardState.num_bytes(SIZE, 1, torch.float32)
    opener = memory.open_existing if path.exists() else memory.create
    return ShardState(opener(path, num_bytes), SIZE, 1, torch.float32)


def gradient(sequence: int) -> Tensor:
    """The gradient of one push, shape (SIZE,): no two alike, and made in far less time than a push
    takes, so that most kills hit a push.
    """
    return wave() * _factor(sequence)


def _factor(sequence: int) -> float:
    return sequence % 50 - 20.5


@functools.cache
def wave() -> Tensor:
    """Shape (SIZE,)."""
    return torch.linspace(-9.0, 9.0, SIZE).sin()


def replies(folder: Path) -> list[dict[str, int]]:
    """The replies that reached the client whole."""
    *lines, _ = (folder / "replies").read_text().split("\n")
    return [json.loads(line) for line in lines]


def serve(folder: Path, epoch: int, stop_after: int | None) -> None:
    """Take over the memory, finish what was begun, and apply push after push until killed."""
    shard = ParameterShard(open_state(folder), make_rule(RULE), epoch)
    begun = shard.finish_interrupted(lambda at: gradient_at(at, SIZE, torch.float32))
    slot = memory.open_existing(folder / "gradient", SIZE * 4)
    shared = torch.frombuffer(slot, dtype=torch.float32, count=SIZE)
    out = os.open(folder / "replies", os.O_WRONLY | os.O_APPEND)
    known = replies(folder)
    first = known[-1]["sequence"] + 1 if known else 1
    last = first + stop_after if stop_after else sys.maxsize
    for sequence in range(first, last):
        torch.mul(wave(), _factor(sequence), out=shared)
        push = Push(0, 1, sequence, shard.version, Progress(1, sequence))
        applied = shard.push(push, shared, Location(str(folder / "gradient"), 0))
        row = {"epoch": epoch, "sequence": sequence, "begun": begun, **applied._asdict()}
        os.write(out, (json.dumps(row) + "\n").encode())


def wait_for_replies(folder: Path, count: int) -> None:
    """Return when the client has `count` replies, or after ten seconds without."""
    deadline = time.monotonic() + 10
    while len(replies(folder)) < count and time.monotonic() < deadline:
        time.sleep(0.001)


def main(folder: Path, seed: int) -> None:
    """Kill NUM_KILLS owners at random moments of their work; let the last one end by itself."""
    torch.set_num_threads(1)  # a forked process inherits the pool without its threads
    rng = random.Random(seed)
    memory.create(folder / "gradient", SIZE * 4)
    (folder / "replies").touch()
    state = open_state(folder)
    state.fill(torch.zeros(SIZE), [torch.zeros(SIZE)], version=0)
    make_rule(RULE).compile(state.vectors.dtype)  # once for all that are forked
    wave()
    for epoch in range(1, NUM_KILLS + 2):
        last_one = epoch > NUM_KILLS
        if not (pid := os.fork()):
            serve(folder, epoch, stop_after=5 if last_one else None)
            os._exit(0)
        if not last_one:
            # Two more replies: one may be that of a duplicate.
            wait_for_replies(folder, len(replies(folder)) + 2)
            time.sleep(rng.uniform(0.0, 0.02))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not last_one:
            was_killed("shard", os.waitstatus_to_exitcode(status))
        elif status:
            sys.exit(f"the owner of epoch {epoch} ended with status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
