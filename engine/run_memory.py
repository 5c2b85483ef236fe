"""The memory of one run, from its first byte to its last."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import memory_folder
from engine.keeper import Keeper
from engine.survivor import Survivor


@contextmanager
def run_memory(token: str) -> Iterator[Path]:
    """A folder whose memory all processes of this host share, freed with the block.

    If this process is killed before, its survivor writes the checkpoint that it owes.
    """
    folder = memory_folder.create(token)
    keeper = Keeper(folder)
    survivor = Survivor(folder, keeper)
    try:
        yield folder
    finally:
        survivor.dismiss()
        keeper.close()
