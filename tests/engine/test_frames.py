"""Frames on a socket: what was sent arrives, anything else is a named error and costs no memory."""

import json
import os
import socket
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.connections import accepted, connect, listen, shut
from engine.frames import (
    BLOCK,
    LOT,
    MAX_MESSAGE,
    DamagedFrameError,
    PeerGoneError,
    ProtocolError,
    as_bytes,
    receive,
    send,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def head(message_length: int, payload_length: int, body: bytes = b"") -> bytes:
    """The bytes before the message, their checksum right whatever the lengths are."""
    fields = struct.pack("<4sIQI", b"VDF2", message_length, payload_length, zlib.crc32(body))
    return fields + check(fields)


def check(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def frame(body: bytes, payload: bytes = b"") -> bytes:
    end = check(payload) if payload else b""
    return head(len(body), len(payload), body) + body + payload + end


def refused(pair: Pair, data: bytes, into: memoryview | None = None) -> pytest.ExceptionInfo:
    """The error that `data` leads to; the memory that it cost is bounded."""
    near, far = pair
    far.sendall(data)
    far.close()
    tracemalloc.start()
    try:
        with pytest.raises(ConnectionError) as caught:
            receive(near, into)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_MESSAGE
    finally:
        tracemalloc.stop()
    return caught


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.binary(max_size=2000))
def test_messages_and_payloads_arrive_as_they_were_sent(fields, payload):
    message = fields | {"op": "anything"}
    into = memoryview(bytearray(len(payload)))
    near, far = socket.socketpair()
    with near, far:
        send(near, message, payload)
        assert receive(far, into) == message
    assert bytes(into) == payload


def test_a_tensor_arrives_to_the_last_bit_in_a_tensor(pair):
    near, far = pair
    sent, received = torch.randn(100_000), torch.empty(100_000)
    thread = threading.Thread(target=send, args=(near, {"op": "push"}, as_bytes(sent)))
    thread.start()  # more than the kernel's buffer holds
    receive(far, as_bytes(received))
    thread.join()
    assert torch.equal(sent, received)


def test_several_frames_are_told_apart(pair):
    near, far = pair
    for i in range(5):
        send(near, {"op": "count", "i": i}, b"x" * 3 if i % 2 else b"")
    into = memoryview(bytearray(3))
    assert [receive(far, into)["i"] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_frame_that_arrives_byte_by_byte_is_whole(pair):
    near, far = pair
    data = frame(b'{"op":"slow"}', b"abc")
    into = memoryview(bytearray(3))

    def dribble() -> None:
        for i in range(len(data)):
            far.sendall(data[i : i + 1])

    thread = threading.Thread(target=dribble)
    thread.start()
    assert receive(near, into) == {"op": "slow"}
    thread.join()
    assert bytes(into) == b"abc"


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: us\r\n\r\n", b"\0" * 24, b"\xff" * 4000]
)
def test_garbage_is_a_protocol_error_that_shows_its_first_bytes(pair, garbage):
    caught = refused(pair, garbage)
    assert caught.type is ProtocolError
    assert repr(garbage[:4]) in str(caught.value)


@pytest.mark.parametrize("length", [MAX_MESSAGE + 1, 2**31, 2**32 - 1])
def test_a_message_over_the_cap_is_refused_before_memory_is_taken(pair, length):
    caught = refused(pair, head(length, 0))
    assert caught.type is ProtocolError
    assert f"message of {length} bytes, cap {MAX_MESSAGE}" in str(caught.value)


@pytest.mark.parametrize("length", [1, 99, 101, 2**40, 2**64 - 1])
def test_a_payload_of_another_size_than_there_is_room_for_is_refused(pair, length):
    body = b'{"op":"push"}'
    data = head(len(body), length, body) + body
    caught = refused(pair, data, memoryview(bytearray(100)))
    assert caught.type is ProtocolError
    assert f"payload of {length} bytes, want 100" in str(caught.value)


def test_a_payload_where_none_is_wanted_is_refused(pair):
    assert "payload of 3 bytes, want 0" in str(refused(pair, frame(b'{"op":"x"}', b"abc")).value)


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"\xff\xfe", b'{"op":', b"[" * 100_000, b"9" * 10_000],
    ids=["empty", "text", "no UTF-8", "half", "nested deeply", "huge number"],
)
def test_a_message_that_is_no_json_is_a_protocol_error(pair, body):
    caught = refused(pair, frame(body))
    assert caught.type is ProtocolError
    assert "message is no JSON" in str(caught.value)


@pytest.mark.parametrize("value", [[], 3, "op", None, {}, {"op": 3}, {"po": "x"}])
def test_a_message_without_an_op_is_a_protocol_error(pair, value):
    caught = refused(pair, frame(json.dumps(value).encode()))
    assert caught.type is ProtocolError
    assert "has no 'op'" in str(caught.value)


def test_a_peer_that_hangs_up_in_the_middle_is_gone():
    whole = frame(b'{"op":"push"}', b"abc")
    for cut in range(len(whole)):
        near, far = socket.socketpair()
        with near:
            caught = refused((near, far), whole[:cut], memoryview(bytearray(3)))
        assert caught.type is PeerGoneError


def widen_window(near: socket.socket, far: socket.socket) -> None:
    """Have the kernel learn that `far` reads fast: a full window would wake it, too."""
    payload = bytes(64 * LOT)
    thread = threading.Thread(target=near.sendall, args=(frame(b'{"op":"x"}', payload),))
    thread.start()
    receive(far, memoryview(bytearray(payload)))
    thread.join()


@pytest.mark.parametrize("num_lots", [1.1, 1.9, 2.0, 2.1, 3.5])
def test_a_receiver_that_waits_for_many_bytes_gets_the_last_ones_too(num_lots):
    """With a part taken already, a wait for a whole lot would never end."""
    payload, early = os.urandom(int(num_lots * LOT)), LOT // 6
    whole = frame(b'{"op":"x"}', payload)
    into, counts = memoryview(bytearray(len(payload))), []
    with listen("127.0.0.1") as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)  # as between two hosts
        near = connect(server.getsockname(), 5.0)
        far = next(accepted(server))
        widen_window(near, far)
        near.sendall(whole[:early])
        while len(far.recv(early, socket.MSG_PEEK)) < early:
            pass
        late = threading.Timer(0.1, near.sendall, (whole[early:],))
        watchdog = threading.Timer(10.0, shut, (far,))
        for timer in (late, watchdog):
            timer.start()
        with near, far:
            assert receive(far, into, counts.append) == {"op": "x"}
            late.join()
            assert watchdog.is_alive()  # else it was woken by the end of the connection
            watchdog.cancel()
            watchdog.join()
            assert far.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    assert bytes(into) == payload
    assert counts[0] == 0
    assert counts[-1] == len(payload)
    assert counts == sorted(set(counts))


def test_any_flipped_bit_of_a_frame_is_noticed():
    whole = frame(b'{"op":"push","sequence":7}', b"gradient")
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        near, far = socket.socketpair()
        with near:
            caught = refused((near, far), bytes(damaged), memoryview(bytearray(8)))
        assert issubclass(caught.type, ProtocolError)
        assert bit < 32 or (caught.type is DamagedFrameError and "damaged" in str(caught.value))


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_payloads_of_any_number_of_blocks_are_checked(pair, size):
    near, far = pair
    payload, into = os.urandom(size), memoryview(bytearray(size))
    thread = threading.Thread(target=far.sendall, args=(frame(b'{"op":"x"}', payload),))
    thread.start()
    assert receive(near, into)["op"] == "x"
    thread.join()
    damaged = bytearray(frame(b'{"op":"x"}', payload))
    damaged[-5] ^= 1  # the payload's last byte
    thread = threading.Thread(target=far.sendall, args=(damaged,))
    thread.start()
    with pytest.raises(DamagedFrameError, match=f"payload of {size} bytes was damaged"):
        receive(near, into)
    thread.join()


@given(st.binary(max_size=300), st.sampled_from([b"", b"VDF2", head(20, 0)]))
def test_no_bytes_whatever_lead_to_anything_but_a_connection_error(data, start):
    near, far = socket.socketpair()
    with near, far:
        far.sendall(start + data)
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            list(iter(lambda: receive(near), None))  # until nothing is left


def test_a_message_too_long_to_be_received_is_not_sent(pair):
    near, far = pair
    with pytest.raises(ValueError, match=f"message 'big' has .* bytes, cap {MAX_MESSAGE}"):
        send(near, {"op": "big", "text": "x" * MAX_MESSAGE})
    send(near, {"op": "next"})
    assert receive(far) == {"op": "next"}
