"""What is known of how long replicas take, and what is expected of them."""

import pytest

from engine.sandblaster.in_hand import InHand, Work
from engine.sandblaster.paces import Paces


def test_a_replica_that_has_not_answered_is_taken_for_as_quick_as_the_quickest():
    paces = Paces()
    assert paces.of(0) == paces.of(1)
    paces.learn(0, 1, 3.0)
    paces.learn(1, 2, 4.0)
    assert [paces.of(replica) for replica in range(3)] == [3.0, 2.0, 2.0]
    paces.forget(0)
    assert paces.of(0) == 2.0


def test_with_every_portion_half_of_what_was_known_is_gone():
    paces = Paces()
    paces.learn(0, 4, 4.0)
    paces.learn(0, 1, 2.0)
    assert paces.of(0) == 1.5
    paces.learn(0, 3, 3 * 9.5)
    assert paces.of(0) == 8.5


def test_works_are_done_one_after_another():
    in_hand, works = InHand(Paces()), [Work(1, (0, 1), False), Work(2, (2,), False)]
    for work in works:
        in_hand.give(0, work, now=10.0)
    assert [in_hand.done_at(0, 10.5, work) for work in works] == [12.0, 13.0]
    assert in_hand.take(0, 1, took_s=1.0, now=11.0) == works[0]
    assert in_hand.done_at(0, 11.0) == 11.5
    assert in_hand.take(0, 1, took_s=1.0, now=11.0) is None


def test_who_is_late_is_expected_to_be_late_as_long_again():
    in_hand = InHand(Paces())
    in_hand.give(0, Work(1, (0, 1), False), now=0.0)
    assert in_hand.done_at(0, 1.9) == 2.0
    assert in_hand.done_at(0, 5.0) == pytest.approx(8.0)


def test_who_is_late_at_the_end_is_known_for_it_in_the_next_batch():
    paces = Paces()
    paces.learn(0, 1, 1.0)
    paces.learn(1, 1, 1.0)
    in_hand = InHand(paces)
    in_hand.give(0, Work(1, (0, 1), False), now=0.0)
    in_hand.give(1, Work(2, (2, 3), False), now=9.5)
    in_hand.end(10.0)
    assert (paces.of(0), paces.of(1)) == (9.0, 1.0)
