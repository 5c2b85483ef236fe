"""How far a run is."""

import pytest

from tasks.training_status import MAX_POINTS, TrainingStatus
from tests.tasks import rows


def status_after(*seen: rows.Row) -> TrainingStatus:
    status = TrainingStatus()
    for row in seen:
        status.see(row)
    return status


def test_speed_is_that_of_all_replicas_over_the_last_seconds_only() -> None:
    early = [rows.progress(t, 10 * t) for t in range(1, 51)]
    late = [rows.progress(t, 500 + 40 * (t - 50), replica=1) for t in range(51, 81)]
    status = status_after(rows.start(total=10_000), *early, *late)
    assert status.images_per_s == pytest.approx(40)


def test_time_left_is_what_remains_at_the_present_speed() -> None:
    status = status_after(rows.start(total=1000), rows.progress(10, 200))
    assert status.remaining_s == pytest.approx(40)


def test_a_resumed_run_counts_no_earlier_samples_as_speed() -> None:
    status = status_after(rows.start(100.0, resumed_at=500), rows.progress(110, 600))
    assert status.images_per_s == pytest.approx(10)
    assert status.fraction == pytest.approx(0.6)


def test_an_iteration_that_ends_beyond_the_budget_is_not_more_than_all() -> None:
    assert status_after(rows.start(total=1000), rows.progress(10, 1420)).fraction == 1


def test_before_the_first_row_nothing_is_known() -> None:
    assert TrainingStatus().remaining_s is None
    assert TrainingStatus().fraction == 0


def test_the_line_names_share_speed_loss_accuracy_and_time_left() -> None:
    seen = rows.start(), rows.progress(10, 100), rows.validation(11, 100, 0.25)
    assert status_after(*seen).line() == (
        "10.0 % of 1,000 samples, 10 images/s, loss 2.000, validation accuracy 75.0 %, 1:30 left"
    )


def test_the_short_line_leaves_room_for_a_bar_on_a_terminal_of_80_columns() -> None:
    seen = rows.start(total=10_000_000), rows.progress(10, 100_000), rows.validation(11, 100, 0)
    assert len(status_after(*seen).short_line()) < 61


def test_the_curve_of_a_long_run_stays_short_and_keeps_its_ends() -> None:
    num = 10 * MAX_POINTS
    status = status_after(rows.start(), *(rows.progress(t, t + 1) for t in range(num)))
    assert len(status.losses) <= MAX_POINTS
    assert status.losses[0].samples == 1
