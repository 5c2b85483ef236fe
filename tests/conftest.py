"""What holds for every test: one thread for arithmetic, the same examples in every run."""

import os
import signal

# Before torch is imported, here or in a process that a test starts: several pools of as many
# threads as there are cores are slower than one thread each.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from tests import kills

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# Tests that were started in the background ignore Ctrl-C, and all processes they start inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

LAST = "test_all_tests_together_kill_every_role_and_at_least_25_processes"


def pytest_configure(config: pytest.Config) -> None:
    kills.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    kills.end()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The count of kills is that of all tests: it comes last, and only where all of them run."""
    last = [item for item in items if item.name == LAST]
    items[:] = [item for item in items if item.name != LAST]
    chosen = config.option.keyword or config.option.markexpr or config.option.lf
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not chosen:
        items += last
    elif last:
        config.hook.pytest_deselected(items=last)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if counts := kills.tally():
        terminalreporter.write_line(kills.told(counts))
