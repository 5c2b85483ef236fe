"""Processes from the fork server: how they ended is told right, whoever asks at the same time."""

import multiprocessing
import os
import signal
import threading
import time

import dask

from tasks.cluster import SETTINGS, environment_at_start
from tasks.fork_server import start_fork_server


def test_all_threads_that_ask_are_told_how_a_process_ended(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", *environment_at_start()):
        monkeypatch.setenv(name, "1")  # so that they are as before in the end
    with dask.config.set(SETTINGS):
        start_fork_server(environment_at_start())
    context = multiprocessing.get_context("forkserver")
    told: list[int | None] = []
    for _ in range(20):
        process = context.Process(target=time.sleep, args=(60,))
        process.start()
        askers = [threading.Thread(target=ask, args=(process, told)) for _ in range(8)]
        for thread in askers:
            thread.start()
        os.kill(process.pid, signal.SIGKILL)
        for thread in askers:
            thread.join(10)
    assert told == [-signal.SIGKILL] * 160


def ask(process, told) -> None:
    told.append(process._popen.poll(0))
