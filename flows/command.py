"""A flow as a command: Hydra's command line around it, and on the screen each error once."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from conf.cli import main

Flow = Callable[..., Path]

#: How Prefect's engine begins the records that repeat an error for whatever it passes through.
_ERRORS = ("Encountered exception during execution", "Task run failed with exception")
_FAILED = "Finished in state Failed"


def command(flow: Flow) -> None:
    """Run `flow` as `conf.cli.main` does, which tells an error at the end; the UI shows all."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_told_once)
    main(whether_or_not_served(flow))


def whether_or_not_served(flow: Flow) -> Flow:
    """`flow`, which ends as it should even when the server of PREFECT_API_URL is not there.

    Training itself never waits for the server, but Prefect's engine reports to it between stages
    and fails when it has gone. Then the flow is run again with a temporary server: what was done
    is found on disk, and the rest is done.
    """

    def run(config_name: str, overrides: list[str]) -> Path:
        url = PREFECT_API_URL.value()
        if url is None:
            _temporary_server_apart()
            return flow(config_name=config_name, overrides=overrides)
        try:
            httpx.get(f"{url}/health", timeout=10)
            return flow(config_name=config_name, overrides=overrides)
        except httpx.TransportError as error:
            message = f"no Prefect server answers at {url} ({error}): going on with a temporary one"
            print(message, file=sys.stderr)
            _temporary_server_apart()
            with temporary_settings(restore_defaults={PREFECT_API_URL}):
                return flow(config_name=config_name, overrides=overrides)

    return run


def _temporary_server_apart() -> None:
    # Imported only where it is needed: it brings in the whole of Prefect's server.
    from flows.server_apart import ServerApart

    ServerApart()


def _told_once(record: logging.LogRecord) -> bool:
    if str(record.msg).startswith(_FAILED):
        record.msg, record.args = _FAILED, ()  # without the error's text
    return not str(record.msg).startswith(_ERRORS)
