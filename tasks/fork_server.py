"""The process that workers are forked from, with everything loaded: multiprocessing's fork server.

There is one in a process; it ends with it, however that ends. A worker takes 0.1 s to start or to
be replaced instead of 2 to 3, which the others lack meanwhile.
"""

import os
from collections.abc import Mapping
from multiprocessing import forkserver

from distributed.utils import get_mp_context


def start_fork_server(environment: Mapping[str, str]) -> None:
    """Start it, unless it runs; it loads what workers need while this process goes on.

    Args:
        environment: variables that count when a program begins, such as malloc's. They are left in
            this process's environment.
    """
    context = get_mp_context()  # type: ignore[no-untyped-call]  # Dask sets what it wants loaded
    context.set_forkserver_preload(["tasks.preloaded"])
    # One thread for arithmetic: a process with more cannot be forked safely.
    os.environ.update({**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    forkserver.ensure_running()
