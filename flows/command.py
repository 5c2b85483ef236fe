"""A flow as a command: Hydra's command line around it, and on the screen each error once."""

import logging
from collections.abc import Callable
from pathlib import Path

from conf.cli import main

#: How Prefect's engine begins the records that repeat an error for whatever it passes through.
_ERRORS = ("Encountered exception during execution", "Task run failed with exception")
_FAILED = "Finished in state Failed"


def command(flow: Callable[..., Path]) -> None:
    """Run `flow` as `conf.cli.main` does, which tells an error at the end; the UI shows all."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_told_once)
    main(flow)


def _told_once(record: logging.LogRecord) -> bool:
    if str(record.msg).startswith(_FAILED):
        record.msg, record.args = _FAILED, ()  # without the error's text
    return not str(record.msg).startswith(_ERRORS)
