"""Small staged data sets and deaths in the middle of staging."""

import os
import signal
import warnings
from dataclasses import fields
from pathlib import Path

import data.look
import data.publish
import data.sources.source
from data.config import DataConfig, StagingConfig
from tests.kills import was_killed

STAGING = {field.name for field in fields(StagingConfig)}


def config_of(path: Path, source="folder", samples_per_tar=5, **settings):
    staging = {name: settings.pop(name) for name in STAGING & settings.keys()}
    return DataConfig(
        name="pets",
        source=source,
        path=str(path),
        staging=StagingConfig(samples_per_tar=samples_per_tar, **staging),
        **settings,
    )


def dies_at(step: int, action) -> bool:
    """Run `action` in a child that gets SIGKILL at its step-th disk or decoding operation.

    False if the action ended before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside idle threads is fine here
        child = os.fork()
    if child == 0:
        try:
            _arm(step)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        was_killed("staging", os.waitstatus_to_exitcode(status))
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _arm(step: int) -> None:
    steps_left = step

    def deadly(operation):
        def counted(*arguments):
            nonlocal steps_left
            steps_left -= 1
            if steps_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments)

        return counted

    for owner, name in (
        (data.publish.os, "fsync"),
        (data.publish.os, "replace"),
        (data.publish.os, "close"),
        (data.look, "decode_rgb"),
        (data.sources.source.Spool, "append"),
    ):
        setattr(owner, name, deadly(getattr(owner, name)))
