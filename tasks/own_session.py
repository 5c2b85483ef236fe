"""Preloaded by every Dask worker: puts it out of reach of signals that are meant for the flow.

Ctrl-C in a terminal and a cancelled run reach the flow's whole process group. The workers must
outlive that by the seconds in which the flow writes a checkpoint; the flow then ends them, and
when it dies without that, they notice and end themselves.
"""

import os
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker's main thread."""
    os.setsid()
