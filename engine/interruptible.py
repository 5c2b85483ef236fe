"""Runs training in a thread of its own, so that signals interrupt waiting and nothing else."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
#: How long an interrupted training may take to write its last checkpoint. Closing the processes
#: takes up to three seconds more, and whoever sent the signal expects an end within ten.
LAST_CHECKPOINT_S = 6.0


def interruptible(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """The result of `work`, which `stop` asks to return early.

    Signal handlers run in the main thread and end what it does with an exception, whichever the
    program chose: KeyboardInterrupt, SystemExit. Were `work` done there, that could strike between
    any two of its instructions. So the main thread only waits; when it is interrupted it calls
    `stop`, waits for `work` to return, and lets the exception go on. A second signal ends that
    wait at once.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    try:
        threading.Thread(target=run, name="training", daemon=True).start()
        wait([outcome])
    except BaseException:
        stop()
        wait([outcome], LAST_CHECKPOINT_S)
        raise
    return outcome.result()
