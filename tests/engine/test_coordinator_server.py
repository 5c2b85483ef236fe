"""The coordinator's sockets and the roles' connections to them."""

import time
from collections.abc import Iterator

import pytest

from engine.connections import connect
from engine.coordinator_link import CoordinatorLink
from engine.coordinator_server import CoordinatorServer, Heard, Lost
from engine.frames import PeerGoneError, receive, send


@pytest.fixture
def server() -> Iterator[CoordinatorServer]:
    server = CoordinatorServer("127.0.0.1")
    yield server
    server.close()


def joined(server: CoordinatorServer, interval_s: float = 60.0) -> tuple[CoordinatorLink, int]:
    link = CoordinatorLink(server.address, server.token, "shard", 3, "tcp://w:1", interval_s)
    heard = server.events.get(timeout=5)
    assert isinstance(heard, Heard)
    assert heard.message["role"] == "shard"
    assert heard.message["index"] == 3
    return link, heard.peer


def test_the_coordinator_hears_what_a_role_says_and_answers(server):
    link, peer = joined(server)
    link.send("serving", version=4)
    assert server.events.get(timeout=5) == Heard(peer, {"op": "serving", "version": 4})
    server.send(peer, {"op": "stop"})
    assert link.receive() == {"op": "stop"}
    link.close()
    assert server.events.get(timeout=5) == Lost(peer, "the peer closed the connection")


def test_a_role_beats_by_itself(server):
    link, peer = joined(server, interval_s=0.01)
    for _ in range(3):
        assert server.events.get(timeout=5) == Heard(peer, {"op": "heartbeat"})
    link.close()


def test_a_dropped_role_notices_at_once(server):
    link, peer = joined(server)
    server.drop(peer)
    with pytest.raises(PeerGoneError):
        link.receive()
    server.send(peer, {"op": "stop"})  # to nobody: no error
    link.close()


@pytest.mark.parametrize("token", ["", "wrong", None, 7, "\N{SNOWMAN}", "\ud800", []])
def test_the_coordinator_does_not_hear_a_stranger(server, token):
    with connect(server.address, 5.0) as sock:
        sock.settimeout(5.0)
        send(sock, {"op": "hello", "token": token, "role": "replica", "index": 0})
        with pytest.raises(PeerGoneError):
            receive(sock)
    assert isinstance(server.events.get(timeout=5), Lost)


def test_a_replica_of_an_earlier_phase_is_sent_home(server):
    server.phase = 2
    late, timely = (
        CoordinatorLink(
            server.address, server.token, "replica", 0, "tcp://w:1", 60.0, more={"phase": phase}
        )
        for phase in (1, 2)
    )
    heard = [server.next_event(5), server.next_event(5)]
    assert [event.message["phase"] for event in heard if event] == [2]
    assert late.receive() == {"op": "stop"}
    late.close()
    timely.close()


def test_what_comes_within_a_tick_is_told_in_order(server):
    link, _ = joined(server)
    for version in range(4):
        link.send("serving", version=version)
    told = [event.message["version"] for event in server.coming(0.5)]
    assert told == [0, 1, 2, 3]
    link.close()


def test_a_closed_coordinator_hangs_up_and_accepts_nobody(server):
    link, _ = joined(server)
    address = server.address
    time.sleep(0.05)  # let the accepting thread wait in accept()
    server.close()
    with pytest.raises(ConnectionError):
        link.receive()
    with pytest.raises(OSError, match=r"refused|reset"):
        connect(address, 5.0)
    link.close()
