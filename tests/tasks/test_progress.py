"""What people see while a network is trained."""

import io
import logging
import time

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tasks.live_artifacts import LiveArtifacts, View
from tasks.progress import LINE_EVERY_S, Bar, TrainingProgress
from tasks.training_status import TrainingStatus
from tests.tasks import rows


class Clock:
    """Says what it is told to."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def lines_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO)
    return logging.getLogger("test-progress")


def test_there_is_one_line_an_interval_and_one_for_each_validation(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    progress = TrainingProgress(TrainingStatus(), logger, clock=clock)
    progress.listen(rows.start())
    for clock.now_s in (1.0, 2.0, LINE_EVERY_S + 0.1, LINE_EVERY_S + 1.0):
        progress.listen(rows.progress(clock.now_s, int(10 * clock.now_s)))
    assert len(lines_of(caplog)) == 1
    progress.listen(rows.validation(clock.now_s, 120, 0.5))
    assert "validation accuracy 50.0 %" in lines_of(caplog)[1][1]


def test_an_incident_is_a_warning_at_once(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    progress = TrainingProgress(TrainingStatus(), logger, clock=Clock())
    progress.listen(rows.event("shard_lost", 1.0, shard=1, epoch=1, pid=1, reason="it was killed"))
    ((level, message),) = lines_of(caplog)
    assert level == "WARNING"
    assert "shard 1 was lost: it was killed" in message


def test_many_refused_pushes_of_a_replica_are_one_warning(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    progress = TrainingProgress(TrainingStatus(), logger, clock=Clock())
    for replica in (0, 0, 0, 1, 1):
        row = rows.event("push_refused", 1.0, replica=replica, message="too stale", pushes=1)
        progress.listen(row)
    assert len(lines_of(caplog)) == 2


def test_the_bar_shows_share_speed_and_incidents(logger: logging.Logger) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    columns = BarColumn(24), TextColumn("{task.fields[line]}")
    with Progress(*columns, console=console) as drawn:
        progress = TrainingProgress(TrainingStatus(), logger, Bar(drawn), Clock())
        progress.listen(rows.start(total=1000))
        progress.listen(rows.event("replica_lost", 2, replica=0, incarnation=1, reason="killed"))
        progress.listen(rows.progress(10.0, 500))
    assert "50 %  50 images/s  loss 2.000  0:10" in screen.getvalue()
    assert "Replica 0 (life 1) was lost: killed." in screen.getvalue()


def test_a_server_that_is_gone_neither_stops_nor_delays_training() -> None:
    gone = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    asked = []

    def look() -> View:
        asked.append(time.monotonic())
        return View(50.0, "half way", "a curve")

    with temporary_settings(gone), LiveArtifacts("gone", look, interval_s=0.01):
        deadline = time.monotonic() + 20
        while len(asked) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(asked) >= 2
