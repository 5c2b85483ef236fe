"""Which failures of a task are worth another try."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun


def may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """True unless the input is bad (ValueError, files that are not there or not for us to use)."""
    error = state.result(raise_on_failure=False)
    return not isinstance(
        error, ValueError | FileNotFoundError | NotADirectoryError | PermissionError
    )
