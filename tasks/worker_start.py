"""Preloaded by every Dask worker: a session of its own, and its own number of threads.

Ctrl-C in a terminal and a cancelled run reach the flow's whole process group. The workers must
outlive that by the seconds in which the flow writes a checkpoint; the flow then ends them, and
when it dies without that, they notice and end themselves.
"""

import os
from typing import Any

import torch


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker's main thread."""
    os.setsid()
    # torch read the variable when it was loaded, in the process that this one was forked from.
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
