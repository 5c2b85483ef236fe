"""Prefect for this checkout: server with UI, process work pool, deployments, worker.

    python -m flows.server [--port 4200]

Everything is on 127.0.0.1 and ends with this program. Starting it again finds what is there.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

HOST = "127.0.0.1"
POOL = "local"
START_TIMEOUT_S = 180.0
#: A run that is told to stop has 10 s to write a checkpoint and end its own processes.
RUN_STOP_TIMEOUT_S = 15.0
#: A worker without runs holds nothing worth waiting for.
STOP_TIMEOUT_S = 3.0
CHECKOUT = Path(__file__).resolve().parent.parent


class ServerError(Exception):
    """The server cannot be brought up; the message says why and what to do."""


def main() -> None:
    """Bring everything up, print where it is, wait for Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m flows.server", description=__doc__)
    parser.add_argument("--port", type=int, default=4200, help="of UI and API (default: 4200)")
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        serve(port)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", flush=True)


def serve(port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Run server and worker until one of them ends or this thread is interrupted.

    Args:
        ready: called once runs can be started.

    Raises:
        ServerError: the port is taken, or a part does not come up or ends by itself.
    """
    require_free(port)
    environment = {**os.environ, "PREFECT_API_URL": f"http://{HOST}:{port}/api"}
    server_command = ["server", "start", "--host", HOST, "--port", str(port)]
    print(f"starting Prefect on {HOST}:{port} ...", flush=True)
    with _running(server_command, environment) as server:
        _wait_until_healthy(server, port)
        _create_pool(environment)
        _call(["--no-prompt", "deploy", "--all"], environment)
        with _running(["worker", "start", "--pool", POOL, "--name", POOL], environment) as worker:
            print(_where(port), flush=True)
            ready()
            _wait_for_end({"server": server, "worker": worker})


def require_free(port: int) -> None:
    """Raise unless nobody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(
                f"port {port} on {HOST} is in use ({error.strerror}): perhaps a server is running "
                f"already; stop it, or choose another: python -m flows.server --port {port + 1}"
            ) from error


def _where(port: int) -> str:
    url, python = f"http://{HOST}:{port}", os.path.relpath(sys.executable)
    return (
        f"\n  UI           {url}\n"
        f"  deployments  {url}/deployments\n"
        "\nTo start a run on the worker, or in a terminal of your own:\n"
        f"  export PREFECT_API_URL={url}/api\n"
        f"  {python} -m prefect deployment run pipeline/nightly\n"
        f"  {python} -m flows.pipeline experiment=quick\n"
        "\nCtrl-C stops server and worker.\n"
    )


def _prefect(arguments: Sequence[str]) -> list[str]:
    """Prefect of the Python that runs this, whatever the PATH finds."""
    return [sys.executable, "-m", "prefect", *arguments]


@contextmanager
def _running(
    arguments: Sequence[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect process in a group of its own, so that a Ctrl-C reaches us alone."""
    process = subprocess.Popen(
        _prefect(arguments), env=environment, cwd=CHECKOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and all it started, gently first.

    A worker alone would wait for its runs to finish; so they are told to stop as well.
    """
    try:
        own = psutil.Process(process.pid)
        started = own.children(recursive=True)
        for child in own.children():
            child.terminate()
    except psutil.NoSuchProcess:
        return
    process.terminate()
    psutil.wait_procs(started, RUN_STOP_TIMEOUT_S)
    psutil.wait_procs([own], STOP_TIMEOUT_S)
    for late in [*started, own]:
        if late.is_running():
            late.kill()
    process.wait()


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServerError(f"the server ended with exit code {server.returncode}; see above")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/api/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ServerError(f"the server did not answer on port {port} within {START_TIMEOUT_S:.0f} s")


def _create_pool(environment: dict[str, str]) -> None:
    there = _call(["work-pool", "inspect", POOL], environment, check=False)
    if there.returncode != 0:
        _call(["work-pool", "create", POOL, "--type", "process"], environment)


def _call(
    arguments: Sequence[str], environment: dict[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        _prefect(arguments), env=environment, cwd=CHECKOUT, capture_output=True, text=True
    )
    if check and done.returncode != 0:
        raise ServerError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done


def _wait_for_end(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise ServerError(f"the {name} ended with exit code {process.returncode}")
        time.sleep(0.5)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
