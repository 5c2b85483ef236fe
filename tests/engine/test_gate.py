"""A shard's gate: what passes while a snapshot is under way, and that nobody waits for ever."""

import threading

import pytest

from engine import gate as module
from engine.gate import Gate

ALICE, BOB = (0, 1), (1, 1)


@pytest.fixture
def lock():
    lock = threading.Lock()
    with lock:
        yield lock


def test_an_open_gate_lets_everything_pass(lock):
    gate = Gate(lock, {})
    gate.pass_through(ALICE, 7)
    assert gate.close() == {}


def test_a_closed_gate_tells_what_was_handled_before_this_process_and_in_it(lock):
    gate = Gate(lock, {ALICE: 5})
    gate.handled(ALICE, 6)
    gate.handled(BOB, 1)
    gate.handled(ALICE, 6)  # sent again
    assert gate.close() == {ALICE: 6, BOB: 1}


def test_pushes_up_to_the_cut_pass_and_the_next_one_waits_for_the_snapshot(lock):
    gate, order = Gate(lock, {ALICE: 4}), []
    gate.close()

    def push(sequence):
        with lock:
            gate.pass_through(ALICE, sequence)
            gate.handled(ALICE, sequence)
            order.append(sequence)

    threads = [threading.Thread(target=push, args=(s,)) for s in (5, 6)]
    for thread in threads:
        thread.start()
    assert gate.wait_for_cut({ALICE: 5})
    order.append("snapshot")
    gate.open()
    lock.release()
    for thread in threads:
        thread.join()
    lock.acquire()
    assert order == [5, "snapshot", 6]


def never_waits(gate: Gate, monkeypatch) -> None:
    """Let waiting for anything fail."""

    def wait(*arguments):
        pytest.fail("waits")

    monkeypatch.setattr(gate._changed, "wait", wait)


def test_a_push_that_never_comes_is_not_waited_for_once_its_sender_is_fenced(lock, monkeypatch):
    gate = Gate(lock, {ALICE: 4})
    gate.close()
    gate.end(BOB)
    never_waits(gate, monkeypatch)
    assert gate.wait_for_cut({ALICE: 4, BOB: 9})


def test_late_pushes_of_who_is_fenced_are_in_no_cut(lock, monkeypatch):
    fenced_before = Gate(lock, {ALICE: 4}, ended=[BOB])
    fenced_now = Gate(lock, {ALICE: 4, BOB: 8})
    fenced_now.end(BOB)
    for gate in (fenced_before, fenced_now):
        gate.handled(BOB, 9)  # refused
        assert gate.close() == {ALICE: 4}
        never_waits(gate, monkeypatch)
        assert gate.wait_for_cut({ALICE: 4, BOB: 9})


def test_a_push_that_is_missing_for_long_is_left_out(lock, monkeypatch):
    monkeypatch.setattr(module, "MISSING_S", 0.01)
    gate = Gate(lock, {ALICE: 4})
    gate.close()
    assert gate.wait_for_cut({ALICE: 5})


def test_a_snapshot_that_takes_too_long_is_given_up_and_not_the_training(lock, monkeypatch):
    monkeypatch.setattr(module, "HOLD_S", 0.01)
    gate = Gate(lock, {ALICE: 4})
    gate.close()
    gate.pass_through(ALICE, 5)
    assert not gate.wait_for_cut({ALICE: 5})
