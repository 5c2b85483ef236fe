"""Silence is judged by what a coordinator that listened has not heard."""

import pytest

from engine.config import ClusterConfig
from engine.seats import Seat
from engine.silence import Silence

CLUSTER = ClusterConfig(heartbeat_interval_s=1.0, heartbeat_timeout_s=8.0)


def seated(heard: float) -> Seat:
    seat = Seat()
    seat.take(1, 2, "tcp://1", heard)
    return seat


def look(silence: Silence, seat: Seat, first: float, last: float) -> float | None:
    """The first of the looks, four a second, at which the seat is silent."""
    for quarter in range(int(4 * first), int(4 * last) + 1):
        if silence.of([seat], quarter / 4):
            return quarter / 4
    return None


def test_a_seat_is_silent_once_it_has_said_nothing_for_the_timeout():
    assert look(Silence(CLUSTER), seated(3.0), 3.0, 20.0) == 11.25


def test_a_seat_without_a_peer_is_not_silent():
    assert look(Silence(CLUSTER), Seat(), 0.0, 20.0) is None


@pytest.mark.parametrize("away_s", [8.0, 100.0])
def test_the_time_in_which_nobody_listened_is_no_silence(away_s):
    silence, seat = Silence(CLUSTER), seated(3.0)
    assert look(silence, seat, 3.0, 4.0) is None
    # It had said nothing for 1 s, and a fourth of the timeout counts: 5 s are left.
    assert look(silence, seat, 4.0 + away_s, 200.0) == 4.0 + away_s + 5.25


def test_nobody_is_heard_later_than_now():
    silence, seat = Silence(CLUSTER), seated(3.0)
    look(silence, seat, 3.0, 3.0)
    seat.heard = 90.0  # after the absence, before the look
    silence.of([seat], 100.0)
    assert seat.heard == 100.0


def test_who_is_silent_is_found_however_seldom_one_looks():
    silence, seat = Silence(CLUSTER), seated(0.0)
    looks = [silence.of([seat], now) for now in (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)]
    assert looks[-1] == [seat]
