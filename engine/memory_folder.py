"""The private folder of one run on one host: what its processes find each other's memory by.

It is named after its owner, the run's own process, so that anybody can tell that the owner is dead.
There lie the names of the run's memory (`engine.keeper`), who owns which shard, and the journal of
leases. It's no memory itself, and a few kB.
"""

import os
import re
import tempfile
from pathlib import Path

from engine.processes import started_at

_PREFIX = "verydeep-"
_NAME = re.compile(rf"{_PREFIX}(?P<pid>\d{{1,10}})-(?P<started>\d+)-.+")


def root() -> Path:
    """Where the folders of all runs of this host are.

    Not the temporary folder that TMPDIR names, where it can be helped: whatever starts next has
    to find them.
    """
    shared = Path("/tmp")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def create(run_token: str) -> Path:
    """A folder for a run of this process, which must remove it."""
    owner = os.getpid()
    folder = root() / f"{_PREFIX}{owner}-{started_at(owner)}-{run_token[:8]}"
    folder.mkdir(mode=0o700)
    return folder


def left_over() -> list[Path]:
    """The folders of owners that are dead."""
    return [path for path in root().glob(f"{_PREFIX}*") if is_left_over(path)]


def owner_of(folder: Path) -> int:
    """The number of the process that made one of our folders."""
    name = _NAME.fullmatch(folder.name)
    if not name:
        raise ValueError(f"{folder}: want the memory folder of a run, {_PREFIX}PID-STARTED-TOKEN")
    return int(name["pid"])


def is_left_over(folder: Path) -> bool:
    """True for a folder of ours whose owner is dead; others may have names like ours."""
    name = _NAME.fullmatch(folder.name)
    try:
        if not name or folder.stat().st_uid != os.getuid():
            return False
        return started_at(int(name["pid"])) != int(name["started"])
    except FileNotFoundError:  # another run has just swept it
        return False
