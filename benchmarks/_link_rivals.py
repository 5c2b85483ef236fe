"""What else carries a vector between two processes of one host: gloo, torch's rpc, Dask's comm.

Each rival has a process of its own; `ping` is the smallest request and its answer, `fetch` brings
the vector of `size` float32 here.
"""

import asyncio
import multiprocessing as mp
import os
import socket
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from distributed import comm as dask_comm
from distributed import protocol as dask_protocol
from torch.distributed import rpc as torch_rpc

_LOOPBACK = "127.0.0.1"
# None of the three has annotations for what is used here.
_comm: Any = dask_comm
_protocol: Any = dask_protocol
rpc: Any = torch_rpc


class Rival:
    """A process that serves; ended by `close`."""

    def __init__(self, serve: Any, size: int) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, size), daemon=True)
        self._process.start()

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


class Gloo(Rival):
    """torch.distributed's send and recv over gloo."""

    def __init__(self, size: int) -> None:
        super().__init__(_serve_gloo, size)
        port = _free_port()
        self.pipe.send(port)
        _join_gloo(port, 0)
        self._token, self._target = torch.zeros(1), torch.empty(size)

    def ping(self) -> None:
        dist.send(self._token.fill_(1.0), 1)
        dist.recv(self._token, 1)

    def fetch(self) -> None:
        dist.send(self._token.fill_(2.0), 1)
        dist.recv(self._target, 1)

    def close(self) -> None:
        dist.send(self._token.fill_(0.0), 1)
        dist.destroy_process_group()
        super().close()


def _join_gloo(port: int, rank: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"tcp://{_LOOPBACK}:{port}", rank=rank, world_size=2
    )


def _serve_gloo(pipe: Connection, size: int) -> None:
    torch.set_num_threads(1)
    _join_gloo(pipe.recv(), 1)
    token, source = torch.zeros(1), torch.ones(size)
    while True:
        dist.recv(token, 0)
        if not token.item():
            break
        dist.send(token if token.item() == 1.0 else source, 0)
    dist.destroy_process_group()


class Rpc(Rival):
    """torch.distributed.rpc over TensorPipe."""

    def __init__(self, size: int) -> None:
        super().__init__(_serve_rpc, size)
        port = _free_port()
        self.pipe.send(port)
        _join_rpc(port, 0)

    def ping(self) -> None:
        rpc.rpc_sync("rank1", _nothing)

    def fetch(self) -> None:
        rpc.rpc_sync("rank1", _source)

    def close(self) -> None:
        rpc.shutdown()
        super().close()


_SOURCE: list[torch.Tensor] = []


def _nothing() -> int:
    return 0


def _source() -> torch.Tensor:
    return _SOURCE[0]


def _join_rpc(port: int, rank: int) -> None:
    os.environ.setdefault("TP_SOCKET_IFNAME", "lo")
    options = rpc.TensorPipeRpcBackendOptions(init_method=f"tcp://{_LOOPBACK}:{port}")
    rpc.init_rpc(f"rank{rank}", rank=rank, world_size=2, rpc_backend_options=options)


def _serve_rpc(pipe: Connection, size: int) -> None:
    torch.set_num_threads(1)
    _SOURCE.append(torch.ones(size))
    _join_rpc(pipe.recv(), 1)
    rpc.shutdown()


class Comm(Rival):
    """distributed.comm, what Dask itself talks over."""

    def __init__(self, size: int) -> None:
        super().__init__(_serve_comm, size)
        self._loop = asyncio.new_event_loop()
        self._comm: Any = self._loop.run_until_complete(_comm.connect(self.pipe.recv()))

    def ping(self) -> None:
        self._loop.run_until_complete(self._ask("ping"))

    def fetch(self) -> None:
        self._loop.run_until_complete(self._ask("fetch"))

    async def _ask(self, request: str) -> Any:
        await self._comm.write(request)
        return await self._comm.read()

    def close(self) -> None:
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()
        super().close()

    async def _hang_up(self) -> None:
        await self._comm.close()


def _serve_comm(pipe: Connection, size: int) -> None:
    source = torch.ones(size).numpy()

    async def handle(comm: Any) -> None:
        with suppress(_comm.CommClosedError):
            while True:
                request = await comm.read()
                await comm.write("pong" if request == "ping" else _protocol.to_serialize(source))

    async def serve() -> None:
        listener: Any = _comm.listen(f"tcp://{_LOOPBACK}", handle, deserialize=True)
        await listener
        pipe.send(listener.contact_address)
        await asyncio.Event().wait()

    asyncio.run(serve())


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as sock:
        return int(sock.getsockname()[1])
