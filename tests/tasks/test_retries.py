"""Which failures are tried again."""

from typing import Any

import pytest
from prefect import task
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from data.sources.source import SourceError
from tasks.retries import may_pass


@task
def some_task() -> None:
    """Stands for any."""


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(28, "No space left on device"), True),
        (RuntimeError("a worker was lost"), True),
        (SourceError("cat.png is empty"), False),
        (FileNotFoundError("no such archive"), False),
        (PermissionError(13, "Permission denied"), False),
        (NotADirectoryError(20, "Not a directory"), False),
    ],
)
def test_what_may_pass_is_tried_again_and_bad_input_is_not(error: Exception, again: bool) -> None:
    run: Any = TaskRun.model_construct()
    assert may_pass(some_task, run, Failed(data=error)) is again
