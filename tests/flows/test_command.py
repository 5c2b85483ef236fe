"""Flows as commands."""

import http.server
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.command import _told_once, whether_or_not_served


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def healthy_url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


class Recorded:
    """A flow that notes which server it was run against; `failing` times the server goes away."""

    def __init__(self, failing: int = 0) -> None:
        self.urls: list[str | None] = []
        self._failing = failing

    def __call__(self, config_name: str, overrides: list[str]) -> Path:
        self.urls.append(PREFECT_API_URL.value())
        if len(self.urls) <= self._failing:
            raise httpx.ConnectError("connection refused")
        return Path("/".join([config_name, *overrides]))


def run(flow: Recorded, url: str | None) -> Path:
    with temporary_settings({PREFECT_API_URL: url}):
        return whether_or_not_served(flow)("config", ["a=1"])


def test_with_a_server_a_flow_runs_once_against_it(healthy_url: str) -> None:
    flow = Recorded()
    assert run(flow, healthy_url) == Path("config/a=1")
    assert flow.urls == [healthy_url]


def test_a_flow_whose_server_goes_away_is_run_again_without_it(
    healthy_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = Recorded(failing=1)
    assert run(flow, healthy_url) == Path("config/a=1")
    assert flow.urls == [healthy_url, None]
    assert f"no Prefect server answers at {healthy_url}" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_not_tried(capsys: pytest.CaptureFixture[str]) -> None:
    flow = Recorded()
    run(flow, "http://127.0.0.1:9/api")
    assert flow.urls == [None]
    assert "http://127.0.0.1:9/api" in capsys.readouterr().err


def test_an_error_of_the_flow_itself_is_passed_on() -> None:
    with pytest.raises(httpx.ConnectError):
        run(Recorded(failing=1), None)


def test_the_screen_shows_no_error_that_the_command_tells_at_its_end() -> None:
    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, text, (), None)

    failed = record("Finished in state Failed('ValueError: the message')")
    assert _told_once(failed)
    assert failed.getMessage() == "Finished in state Failed"
    assert not _told_once(record("Encountered exception during execution: ValueError()"))
    assert _told_once(record("Crash detected!"))
