"""The process that workers are forked from, with everything loaded: multiprocessing's fork server.

There is one in a process; it ends with it, however that ends. A worker takes 0.1 s to start or to
be replaced instead of 2 to 3, which the others lack meanwhile.
"""

import os
import threading
from collections.abc import Mapping
from multiprocessing import connection, forkserver
from multiprocessing.popen_forkserver import Popen

from distributed.utils import get_mp_context

_poll = Popen.poll
_polling = threading.Lock()


def start_fork_server(environment: Mapping[str, str]) -> None:
    """Start it, unless it runs; it loads what workers need while this process goes on.

    Args:
        environment: variables that count when a program begins, such as malloc's. They are left in
            this process's environment.
    """
    # Of the class: Dask makes its processes itself, and multiprocessing polls them all.
    Popen.poll = _poll_alone  # type: ignore[method-assign, assignment]
    context = get_mp_context()  # type: ignore[no-untyped-call]  # Dask sets what it wants loaded
    context.set_forkserver_preload(["tasks.preloaded"])
    # One thread for arithmetic: a process with more cannot be forked safely.
    os.environ.update({**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    forkserver.ensure_running()


def _poll_alone(self: Popen, flag: int = os.WNOHANG) -> int | None:
    """`Popen.poll`, by one thread at a time: of two that see a process end, one would be told 255.

    How it ended is told once, in a pipe. One of Dask's threads waits for each process, and whoever
    starts another process asks after all.
    """
    if flag != os.WNOHANG and self.returncode is None:
        connection.wait([self.sentinel])
    with _polling:
        return _poll(self)
