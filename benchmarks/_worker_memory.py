"""Measure with the malloc settings that the workers of a run have."""

import os
import sys
from typing import Final

from tasks.cluster import SETTINGS

PREFIX: Final = "distributed.nanny.pre-spawn-environ."


def as_in_a_worker() -> None:
    """Start this command again with a worker's settings, unless it has them.

    malloc reads them once, at the start of a process. Without them freed mini-batches go back to
    the system, and filling fresh pages costs all who are compared a tenth of their speed.
    """
    wanted = {
        name.removeprefix(PREFIX): str(value)
        for name, value in SETTINGS.items()
        if name.startswith(PREFIX)
    }
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, sys.orig_argv)
