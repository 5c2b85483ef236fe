"""Memory without a name of its own, which the run's own process holds open for all others.

A file of the memory file system stays when all that used it is killed, and its memory with it. One
without a name goes with the last process that has it open or mapped. So whoever makes memory hands
it to the keeper, a thread of the run's own process, which enters it into the run's folder: as a
link to what that process has open. There a successor finds it as if it were a file.

The run's survivor gets everything, too (`engine.survivor`): what was acknowledged outlives the run.
"""

import array
import errno
import fcntl
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from engine import memory_folder

_SOCKET = "keeper"
_KEEP, _FREE = b"keep", b"free"
_SEPARATOR = b"\0"
_MESSAGE_BYTES = 16_384
#: So many descriptors go with one message; the kernel takes 253.
NUM_AT_ONCE = 64
_LOOK_S = 1.0


class Keeper:
    """What the memory of one run is held by."""

    def __init__(self, folder: Path) -> None:
        """Hold the memory whose paths are in `folder`, which belongs to this process."""
        self._folder = folder
        self._held: dict[str, int] = {}
        self._heir: socket.socket | None = None
        self._changing = threading.Lock()
        # Whoever clears /tmp of what is old leaves a folder alone that somebody has locked.
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with _address(folder) as address:
            self._socket.bind(address)
        self._thread = threading.Thread(target=self._serve, name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Free everything, once nobody maps it any more; remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        with self._changing:
            for descriptor in self._held.values():
                os.close(descriptor)
            self._held.clear()
            self._lose_heir()
        os.close(self._lock)

    def bequeath(self, heir: socket.socket) -> None:
        """Let a process have everything open that we have, now and later, instead of the last one.

        Args:
            heir: a SOCK_SEQPACKET whose other end it reads as a `Bequest`; closed when it does not.
        """
        heir.setblocking(False)
        with self._changing:
            self._lose_heir()
            self._heir = heir
            held = list(self._held.items())
            for first in range(0, len(held), NUM_AT_ONCE):
                some = held[first : first + NUM_AT_ONCE]
                self._tell_heir(_KEEP, [name for name, _ in some], [at for _, at in some])

    def _serve(self) -> None:
        while True:
            message, descriptors = _receive(self._socket, 2)
            if not message:  # only closing sends nothing
                return
            verb, name, *link = message.split(_SEPARATOR)
            with self._changing:
                if verb == _KEEP:
                    self._keep(os.fsdecode(name), descriptors)
                else:
                    self._free(os.fsdecode(name), os.fsdecode(link[0]))

    def _keep(self, name: str, descriptors: list[int]) -> None:
        if len(descriptors) < 2:  # we may have no more open: whoever waits hears that it is over
            for descriptor in descriptors:
                os.close(descriptor)
            return
        reply, descriptor = descriptors
        failure = 0
        try:
            (self._folder / name).symlink_to(_link_to(descriptor))
        except OSError as error:
            failure = error.errno or errno.EIO
            os.close(descriptor)
        else:
            if name in self._held:  # its name was taken from it
                os.close(self._held[name])
            self._held[name] = descriptor
            self._tell_heir(_KEEP, [name], [descriptor])
        with socket.socket(fileno=reply) as answer, suppress(OSError):  # who asked may be dead
            answer.send(b"%d" % failure)

    def _free(self, name: str, link: str) -> None:
        if name in self._held and _link_to(self._held[name]) == link:
            os.close(self._held.pop(name))
            self._tell_heir(_FREE, [name], [])

    def _tell_heir(self, verb: bytes, names: Sequence[str], descriptors: Sequence[int]) -> None:
        message = _SEPARATOR.join([verb, *map(os.fsencode, names)])
        try:
            if self._heir:
                socket.send_fds(self._heir, [message], descriptors)
        except OSError:  # dead, or stopped for so long that it has to begin anew
            self._lose_heir()

    def _lose_heir(self) -> None:
        if self._heir:
            self._heir.close()
            self._heir = None


def is_in(folder: Path) -> bool:
    """True if the memory of this folder has a keeper."""
    return (folder / _SOCKET).exists()


def keep(path: Path, descriptor: int) -> None:
    """Have an open file held, and found at `path` from now on, until `free`.

    Raises:
        FileExistsError: there is one.
        ConnectionError: the run's own process is dead, or may not have any more files open.
    """
    ours, theirs = socket.socketpair()
    answer = b""
    with ours, suppress(ConnectionError):
        with theirs:
            _send(path.parent, [_KEEP, os.fsencode(path.name)], [theirs.fileno(), descriptor])
        answer = _answer(ours, path.parent)
    if not answer:
        raise ConnectionError(
            f"{path}: process {memory_folder.owner_of(path.parent)} has not taken the memory: "
            "it is dead, or may have no more files open (ulimit -n)"
        )
    if failure := int(answer):
        raise OSError(failure, os.strerror(failure), str(path))


def free(path: Path) -> None:
    """Have nothing at `path` any more; what was there is freed when nobody maps it."""
    try:
        link = path.readlink()
        path.unlink()
        _send(path.parent, [_FREE, os.fsencode(path.name), os.fsencode(link)], [])
    except (FileNotFoundError, ConnectionError):  # it is gone, or its keeper with all of it
        return


def _send(folder: Path, words: Sequence[bytes], descriptors: Sequence[int]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, _address(folder) as address:
        sock.connect(address)
        socket.send_fds(sock, [_SEPARATOR.join(words)], descriptors)


def _receive(sock: socket.socket, num_descriptors: int) -> tuple[bytes, list[int]]:
    """The next message, and descriptors that no program inherits which this process starts."""
    descriptors = array.array("i")
    room = socket.CMSG_LEN(num_descriptors * descriptors.itemsize)
    # `socket.recv_fds` takes flags, and makes no use of them (Python 3.11).
    message, ancillary, _, _ = sock.recvmsg(_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(content) - len(content) % descriptors.itemsize
            descriptors.frombytes(content[:whole])
    return message, descriptors.tolist()


def _answer(sock: socket.socket, folder: Path) -> bytes:
    """What comes from the keeper; nothing if it is dead."""
    sock.settimeout(_LOOK_S)
    while True:
        try:
            return sock.recv(_MESSAGE_BYTES)
        except TimeoutError:  # it's stopped, unless it is dead and a fork of it has the socket
            if memory_folder.is_left_over(folder):
                return b""


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """Of the keeper's socket: a folder's own path may be longer than an address can be."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


def _link_to(descriptor: int) -> str:
    return f"/proc/{os.getpid()}/fd/{descriptor}"


class Bequest:
    """What an heir has got from a keeper."""

    def __init__(self, sock: socket.socket) -> None:
        """Take it from `sock`, the other end of what `Keeper.bequeath` was given."""
        self._socket = sock
        self._held: dict[str, int] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bool:
        """Take the next message, which must be there; False: no other will come."""
        message, descriptors = _receive(self._socket, NUM_AT_ONCE)
        if not message:
            return False
        verb, *names = map(os.fsdecode, message.split(_SEPARATOR))
        if verb == _KEEP.decode():
            for name, descriptor in zip(names, descriptors, strict=True):
                self._drop(name)
                self._held[name] = descriptor
        else:
            for name in names:
                self._drop(name)
        return True

    def read_all(self) -> None:
        """Take all messages that are there."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while self.read():
                pass

    def enter(self, folder: Path) -> None:
        """Have what is in `folder`, and was the dead keeper's, lead to what this process has."""
        for name, descriptor in self._held.items():
            path, new = folder / name, folder / f"{name}.ours"
            if path.is_symlink():  # else it is not needed any more
                new.symlink_to(_link_to(descriptor))
                new.rename(path)

    def _drop(self, name: str) -> None:
        if name in self._held:
            os.close(self._held.pop(name))
