"""The event log over several attempts of a run."""

import json
import os

from engine.events import EventLog, ignore


def test_a_row_after_a_torn_one_stands_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"time_s": 1.0, "event": "start"}\n{"time_s": 2.0, "ev')
    log = EventLog(path, ignore, elapsed_s=2.0)
    log.record("start", samples=5)
    log.close()
    first, torn, last = path.read_text().splitlines()
    assert json.loads(first)["event"] == "start"
    assert torn == '{"time_s": 2.0, "ev'
    assert json.loads(last)["samples"] == 5


def test_an_empty_log_starts_with_its_first_row(tmp_path):
    path = tmp_path / "events.jsonl"
    path.touch()
    log = EventLog(path, ignore)
    log.record("start")
    log.close()
    assert len(path.read_text().splitlines()) == 1


def test_a_full_disk_costs_rows_and_not_the_run(tmp_path, caplog):
    heard = []
    log = EventLog(tmp_path / "events.jsonl", heard.append)
    log.record("start")
    full, own = os.open("/dev/full", os.O_WRONLY), os.dup(log._file.fileno())
    os.dup2(full, log._file.fileno())
    log.record("progress", samples=1)
    os.dup2(own, log._file.fileno())
    log.record("progress", samples=2)
    log.close()
    os.close(full)
    os.close(own)
    assert [row.get("samples") for row in heard] == [None, 1, 2]
    written = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [row.get("samples") for row in written] == [None, 2]
    assert "No space left" in caplog.text
