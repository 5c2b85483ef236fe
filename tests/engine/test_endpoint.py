"""Who a shard's endpoint lets in, and what it does with the others."""

import socket
from collections.abc import Iterator

import pytest
import torch

from engine.connections import connect
from engine.frames import PeerGoneError, receive, send
from tests.engine.serving import TOKEN, Serving, serving
from tests.engine.shards import vector

STRANGERS = ["", "wrong", None, 7, "\N{SNOWMAN}", "\ud800", [TOKEN]]


@pytest.fixture
def link(tmp_path) -> Iterator[Serving]:
    """One shard of a vector of 100 values."""
    with serving(tmp_path, num_shards=1) as link:
        yield link


@pytest.fixture
def sock(link) -> Iterator[socket.socket]:
    """A fresh connection to the shard."""
    with connect(link.endpoints[0].address, 5.0) as sock:
        sock.settimeout(5.0)
        yield sock


def hello(link: Serving, **changed) -> dict:
    segment = {"segment": str(link.segment.path), "nonce": link.segment.nonce}
    return {"op": "hello", **link.hello, **segment, **changed}


def still_serves(link: Serving) -> bool:
    link.segment.parameters[0].zero_()
    link.server.fetch(0)
    return torch.equal(link.segment.parameters[0], vector(100, seed=0))


@pytest.mark.parametrize("token", STRANGERS)
def test_a_stranger_without_the_token_is_cut_off_without_an_answer(link, sock, token):
    send(sock, hello(link, token=token))
    with pytest.raises(PeerGoneError):
        receive(sock)
    assert still_serves(link)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\nHost: us\r\n\r\n", b"VDF2" + b"\xff" * 20, b"\0" * 99]
)
def test_garbage_is_cut_off(link, sock, garbage):
    sock.sendall(garbage)
    with pytest.raises(ConnectionError):
        receive(sock)
    assert still_serves(link)


def test_a_request_before_the_hello_is_cut_off(link, sock):
    send(sock, {"op": "fetch", "buffer": 0, "token": TOKEN, "size": 100})
    assert receive(sock)["op"] == "refused"
    with pytest.raises(PeerGoneError):
        receive(sock)
    assert still_serves(link)


def test_an_unknown_request_is_cut_off(link, sock):
    send(sock, hello(link))
    assert receive(sock) == {"op": "welcome", "shared": True, "version": 0}
    send(sock, {"op": "delete"})
    with pytest.raises(ConnectionError):
        receive(sock)
    assert still_serves(link)


def test_a_ping_is_answered(link, sock):
    send(sock, hello(link))
    receive(sock)
    send(sock, {"op": "ping"})
    assert receive(sock) == {"op": "pong"}


def test_a_silent_stranger_is_in_nobodys_way(link, sock):
    assert still_serves(link)


def test_a_closed_endpoint_hangs_up_and_accepts_nobody(link, sock):
    send(sock, hello(link))
    receive(sock)
    address = link.endpoints[0].address
    link.endpoints[0].close()
    with pytest.raises(PeerGoneError):
        receive(sock)
    with pytest.raises(OSError, match=r"refused|reset"):
        connect(address, 5.0)


def test_a_closed_endpoint_leaves_no_thread_behind(tmp_path):
    """One that freed a tensor while the interpreter ends would abort the process, now and then."""
    with serving(tmp_path, size=1 << 22, num_shards=1, same_host=False) as link:
        link.server.fetch(0)
        link.push(1)
        (endpoint,) = link.endpoints
        assert len(endpoint._threads) == 2
        endpoint.close()
        assert not any(thread.is_alive() for thread in endpoint._threads)
