"""The event log over several attempts of a run."""

import json

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
