"""What is read back from an event log."""

import json
from pathlib import Path

from tasks.report.history import history_of, read_events
from tests.tasks import rows


def test_staleness_counts_and_waiting_times_add_up_over_the_rows() -> None:
    history = history_of([rows.start(), rows.progress(1, 10), rows.progress(2, 20)])
    assert history.staleness[0] == {0: 6, 2: 2}
    assert history.waiting_s[0] == 0.5


def test_curves_of_samples_computed_again_after_a_resumption_appear_once() -> None:
    history = history_of(rows.eventful_run())
    samples = [point.samples for point in history.loss]
    assert samples == [100, 300, 400, 1000]
    assert [point.value for point in history.validation["top1_error"]] == [0.5, 0.25]


def test_a_finished_run_is_complete_and_a_resumed_one_is_not() -> None:
    whole = rows.eventful_run()
    assert history_of(whole).complete
    assert history_of(whole).num_samples == 1000
    assert not history_of([*whole, rows.start(14.0, resumed_at=300)]).complete


def test_losses_and_returns_of_processes_are_incidents_and_first_starts_are_not() -> None:
    told = [incident.what for incident in history_of(rows.eventful_run()).incidents]
    assert len(told) == 6
    for text, word in zip(
        told,
        ["Replica 1", "64 samples", "life 2", "shard 0 was lost", "epoch 2", "stopped"],
        strict=True,
    ):
        assert word in text


def test_a_line_cut_short_by_a_dying_process_hides_no_other_line(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    torn = json.dumps(rows.progress(1, 10))[:30] + "\n"
    log.write_text(json.dumps(rows.start()) + "\n" + torn + json.dumps(rows.progress(2, 20)) + "\n")
    assert [row["event"] for row in read_events(log)] == ["start", "progress"]
