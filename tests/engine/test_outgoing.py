"""A slice on its way is that of one moment, whatever pushes come meanwhile; nobody waits for it."""

import socket
import threading
from collections.abc import Iterator

import pytest
import torch

from engine.connections import connect
from engine.frames import BLOCK, PeerGoneError, as_bytes, receive, send
from engine.outgoing import Outgoing
from engine.push import FencedShardError
from tests.engine.serving import Serving, serving
from tests.engine.shards import vector

SIZE = 4_000_000  # four times what the kernel holds on its way
MESSAGE = {"op": "fetched"}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def received(sock: socket.socket, size: int) -> torch.Tensor:
    values = torch.empty(size)
    assert receive(sock, as_bytes(values)) == MESSAGE
    return values


def sending(outgoing: Outgoing, sock: socket.socket, confirm=lambda: None) -> threading.Thread:
    thread = threading.Thread(target=outgoing.send, args=(sock, MESSAGE, confirm))
    thread.start()
    return thread


@pytest.mark.parametrize("size", [1, BLOCK // 4, BLOCK // 4 + 1, 300_001])
def test_a_slice_arrives_as_it_is(pair, size):
    near, far = pair
    outgoing, values = Outgoing(size, torch.float32), torch.randn(size)
    for _ in range(2):
        outgoing.begin(values)
        thread = sending(outgoing, near)
        assert torch.equal(received(far, size), values)
        thread.join()


@pytest.mark.parametrize("blocks_read", [0, 1, 7])
def test_a_change_in_the_middle_does_not_show(pair, blocks_read):
    near, far = pair
    outgoing, values = Outgoing(SIZE, torch.float32), torch.randn(SIZE)
    before = values.clone()
    outgoing.begin(values)
    thread = sending(outgoing, near)
    first = bytearray()
    while len(first) < blocks_read * BLOCK:
        first += far.recv(BLOCK)
    outgoing.preserve()
    values.zero_()
    outgoing.preserve()  # another push: nothing to keep any more
    assert torch.equal(received(_Rejoined(first, far), SIZE), before)
    thread.join()


class _Rejoined:
    """A socket of which the first bytes have been read already."""

    def __init__(self, first: bytearray, sock: socket.socket) -> None:
        self._first, self._sock = first, sock

    def recv_into(self, into: memoryview) -> int:
        if not self._first:
            return self._sock.recv_into(into)
        count = min(len(into), len(self._first))
        into[:count] = self._first[:count]
        del self._first[:count]
        return count

    def setsockopt(self, *option: int) -> None:
        self._sock.setsockopt(*option)


def test_a_push_does_not_wait_for_a_replica_that_does_not_read(tmp_path):
    with serving(tmp_path, size=SIZE, num_shards=1, same_host=False) as link:
        with asking(link) as slow:
            link.segment.gradients[0].fill_(1.0)
            for sequence in range(1, 4):
                link.push(sequence)
            values = torch.empty(SIZE)
            assert receive(slow, as_bytes(values)) == {"op": "fetched", "version": 0}
            assert torch.equal(values, vector(SIZE, seed=0))
        assert link.shards[0].version == 3


def test_a_replica_that_goes_in_the_middle_of_a_fetch_leaves_nothing_behind(tmp_path):
    with serving(tmp_path, size=SIZE, num_shards=1, same_host=False) as link:
        asking(link).close()
        for _ in range(500):
            if not link.endpoints[0]._outgoing:
                break
            threading.Event().wait(0.01)
        assert not link.endpoints[0]._outgoing


def test_parameters_that_a_successor_may_have_changed_are_never_complete(pair):
    near, far = pair
    outgoing = Outgoing(100, torch.float32)
    outgoing.begin(torch.ones(100))

    def fenced() -> None:
        raise FencedShardError("replaced")

    with pytest.raises(FencedShardError):
        outgoing.send(near, MESSAGE, fenced)
    near.close()
    with pytest.raises(PeerGoneError):
        received(far, 100)


def asking(link: Serving) -> socket.socket:
    """A second replica that has asked for the parameters and reads no reply yet."""
    sock = connect(link.endpoints[0].address, 5.0)
    send(sock, link.hello | {"op": "hello", "replica": 1, "segment": "none", "nonce": ""})
    receive(sock)
    send(sock, {"op": "fetch", "buffer": 0})
    for _ in range(500):
        if link.endpoints[0]._outgoing:
            break
        threading.Event().wait(0.01)
    return sock
