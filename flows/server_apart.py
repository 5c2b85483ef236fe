"""Prefect's temporary server, out of reach of signals that are meant for the flow.

Ctrl-C reaches every process of the terminal's group. Prefect's own temporary server would be gone
before the flow, which then tries for two and a half minutes to report its end to nobody.
"""

import functools
import subprocess
from typing import Any

from prefect.server.api.server import SubprocessASGIServer


class ServerApart(SubprocessASGIServer):
    """The same server in a session of its own.

    There is one instance for all: once made, Prefect starts this one when it needs a server.
    """

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        plain = subprocess.Popen
        subprocess.Popen = functools.partial(plain, start_new_session=True)  # type: ignore
        try:
            return super()._run_uvicorn_command()
        finally:
            subprocess.Popen = plain  # type: ignore[misc]
