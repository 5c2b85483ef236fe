"""The process that workers are forked from, with everything loaded: multiprocessing's fork server.

There is one in a process; it ends with it, however that ends. A worker takes 0.1 s to start or to
be replaced instead of 2 to 3, which the others lack meanwhile.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection, forkserver, resource_tracker, util
from multiprocessing.popen_forkserver import Popen
from multiprocessing.synchronize import SemLock
from typing import Any

from distributed.utils import get_mp_context

_poll = Popen.poll
_polling = threading.Lock()


def start_fork_server(environment: Mapping[str, str]) -> None:
    """Start it, unless it runs; it loads what workers need while this process goes on.

    Args:
        environment: variables that count when a program begins, such as malloc's. They are left in
            this process's environment.
    """
    _start_tracker()
    # Of the class: Dask makes its processes itself, and multiprocessing polls them all.
    Popen.poll = _poll_alone  # type: ignore[method-assign, assignment]
    context = get_mp_context()  # type: ignore[no-untyped-call]  # Dask sets what it wants loaded
    context.set_forkserver_preload(["tasks.preloaded"])
    # One thread for arithmetic: a process with more cannot be forked safely.
    os.environ.update({**environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    forkserver.ensure_running()


def _start_tracker() -> None:
    """Start the process that removes multiprocessing's semaphores when all who used them are dead.

    In a session of its own, for which multiprocessing has no setting: one that is killed with the
    run leaves them in shared memory for ever.
    """
    spawn = util.spawnv_passfds
    util.spawnv_passfds = _spawn_in_new_session
    try:
        resource_tracker.ensure_running()
    finally:
        util.spawnv_passfds = spawn


def take_names(queue: Any) -> None:
    """Have the semaphores of a multiprocessing queue go with the last process that has them.

    To be called once the processes at both ends have opened it. The tracker removes names only
    while it lives, and they take shared memory. multiprocessing has no other way to be asked for
    what it does at a queue's end.
    """
    locks = (queue._rlock, queue._wlock, queue._sem)
    names = {lock._semlock.name for lock in locks}
    ends: Mapping[Any, Any] = vars(util)["_finalizer_registry"]
    for end in list(ends.values()):
        if end._callback is SemLock._cleanup and end._args[0] in names:  # type: ignore[attr-defined]
            with suppress(FileNotFoundError):  # somebody has cleared them away
                end()


def _spawn_in_new_session(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    kept = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in passfds]  # else they would be closed
    return os.posix_spawn(path, list(args), os.environ, file_actions=kept, setsid=True)


def _poll_alone(self: Popen, flag: int = os.WNOHANG) -> int | None:
    """`Popen.poll`, by one thread at a time: of two that see a process end, one would be told 255.

    How it ended is told once, in a pipe. One of Dask's threads waits for each process, and whoever
    starts another process asks after all.
    """
    if flag != os.WNOHANG and self.returncode is None:
        connection.wait([self.sentinel])
    with _polling:
        return _poll(self)
