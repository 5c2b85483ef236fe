"""What goes over our own sockets: a small JSON message and, behind it, raw bytes. No pickle.

    magic (4) | length of the message (u32) | length of the payload (u64) | CRC of the message (u32)
    | CRC of the bytes so far (u32) | message | payload | CRC of the payload (u32), if there is one

Both lengths are checked against caps before any memory is taken: a stranger who sends garbage
or a length of 2^40 is cut off. Whatever is damaged on its way ends the connection, and the request
is sent again over the next one: TCP's own checksum lets one packet in 16 million to 10 billion
through damaged (Stone & Partridge 2000).
"""

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

from isal.isal_zlib import crc32
from torch import Tensor

_HEAD = struct.Struct("<4sIQI")
_CHECK = struct.Struct("<I")
_MAGIC = b"VDF2"
_in_json = json.JSONEncoder(separators=(",", ":")).encode
#: Bytes that are checked and sent at a time: they stay in the cache.
BLOCK = 1 << 17
#: Bytes that are received and checked at a time, for which a receiver is woken once.
LOT = 1 << 18
#: Longest message in bytes; addresses, numbers and progress tables are far below it.
MAX_MESSAGE = 1 << 20

Message = dict[str, Any]
Buffer = bytes | bytearray | memoryview


class ProtocolError(ConnectionError):
    """The peer does not speak our protocol; the connection is of no more use."""


class DamagedFrameError(ProtocolError):
    """Bytes of a frame were changed on their way; sent again they may arrive."""


class PeerGoneError(ConnectionError):
    """The peer closed the connection."""


def send(sock: socket.socket, message: Message, payload: Buffer = b"") -> None:
    """Send one frame; blocks until the kernel has taken all of it."""
    view = memoryview(payload).cast("B")
    send_message(sock, message, len(view))
    if len(view):
        check = 0
        for start in range(0, len(view), BLOCK):
            block = view[start : start + BLOCK]
            check = crc32(block, check)
            sock.sendall(block)
        send_check(sock, check)


def send_message(sock: socket.socket, message: Message, payload_length: int) -> None:
    """Begin a frame: all of it that comes before the payload."""
    body = _in_json(message).encode()
    if len(body) > MAX_MESSAGE:
        raise ValueError(f"message {message.get('op')!r} has {len(body)} bytes, cap {MAX_MESSAGE}")
    head = _HEAD.pack(_MAGIC, len(body), payload_length, crc32(body))
    sock.sendall(head + _CHECK.pack(crc32(head)) + body)


def send_check(sock: socket.socket, check: int) -> None:
    """End a frame with the CRC of its payload."""
    sock.sendall(_CHECK.pack(check))


def receive(
    sock: socket.socket,
    into: memoryview | None = None,
    arrived: Callable[[int], object] | None = None,
) -> Message:
    """Receive one frame; its payload, if any, must fit `into` exactly.

    Args:
        arrived: called as the payload comes, with the number of its bytes that lie in `into`, from
            0 on: the newest are in the cache. Their CRC has not been compared yet.

    Raises:
        PeerGoneError: closed by the peer.
        ProtocolError: garbage, a length over its cap, a payload of another size than `into`.
        DamagedFrameError: other bytes than were sent; `into` holds them.
    """
    message_length, payload_length, message_check = _receive_head(sock)
    room = 0 if into is None else len(into)
    if payload_length not in (0, room):
        raise ProtocolError(f"payload of {payload_length} bytes, want {room}")
    body = bytearray(message_length)
    _receive_exactly(sock, memoryview(body))
    _require(crc32(body) == message_check, "message", message_length)
    if payload_length and into is not None:
        check = _receive_payload(sock, into, arrived)
        end = bytearray(_CHECK.size)
        _receive_exactly(sock, memoryview(end))
        _require(_CHECK.unpack(end) == (check,), "payload", payload_length)
    try:
        message = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"message is no JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise ProtocolError("message has no 'op'")
    return message


def _receive_head(sock: socket.socket) -> tuple[int, int, int]:
    """Lengths of message and payload, and the CRC of the message."""
    head = bytearray(_HEAD.size + _CHECK.size)
    _receive_exactly(sock, memoryview(head))
    magic, message_length, payload_length, message_check = _HEAD.unpack_from(head)
    if magic != _MAGIC:
        raise ProtocolError(f"frame starts with {bytes(magic)!r}, want {_MAGIC!r}")
    (check,) = _CHECK.unpack_from(head, _HEAD.size)
    _require(crc32(memoryview(head)[: _HEAD.size]) == check, "head", len(head))
    if message_length > MAX_MESSAGE:
        raise ProtocolError(f"message of {message_length} bytes, cap {MAX_MESSAGE}")
    return message_length, payload_length, message_check


def _require(sound: bool, part: str, num_bytes: int) -> None:
    if not sound:
        raise DamagedFrameError(f"{part} of {num_bytes} bytes was damaged on its way")


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, to send from or to receive into."""
    array: Any = tensor.numpy()
    return memoryview(array).cast("B")


def _receive_payload(
    sock: socket.socket, into: memoryview, arrived: Callable[[int], object] | None
) -> int:
    """Fill `into`; return the CRC of what came.

    To wake a receiver costs the sender's core more than to send a packet, so it happens once a lot.
    A receiver that has taken a part of its lot is woken by another whole one only: towards the end
    less than that may be owed, and any packet must do.
    """
    received = check = 0
    if arrived:
        arrived(0)
    last_patient = len(into) - 2 * LOT
    if received <= last_patient:
        _wake_at(sock, LOT)
    while received < len(into):
        count = _receive_some(sock, into[received : received + LOT])
        check = crc32(into[received : received + count], check)
        if received <= last_patient < received + count:
            _wake_at(sock, 1)
        received += count
        if arrived:
            arrived(received)
    return check


def _wake_at(sock: socket.socket, num_bytes: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, num_bytes)


def _receive_exactly(sock: socket.socket, into: memoryview) -> None:
    received = 0
    while received < len(into):
        received += _receive_some(sock, into[received:])


def _receive_some(sock: socket.socket, into: memoryview) -> int:
    count = sock.recv_into(into)
    if not count:
        raise PeerGoneError("the peer closed the connection")
    return count
