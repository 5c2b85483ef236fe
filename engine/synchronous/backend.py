"""Which library of torch's sums the gradients of all ranks."""

import platform

import torch
import torch.distributed as dist

_CPU = b"cpu"


def agreed_backend(
    store: "dist.Store",  # type: ignore[name-defined]  # torch has it, its stubs do not
    rank: int,
    num_ranks: int,
    device: torch.device,
) -> str:
    """nccl if each rank computes on a GPU of its own, gloo otherwise: nccl lets none share one.

    All ranks must call it, with the same `store`; all get the same answer.
    """
    store.set(f"device-{rank}", _name(device))
    names = [store.get(f"device-{other}") for other in range(num_ranks)]
    return "nccl" if _CPU not in names and len(set(names)) == num_ranks else "gloo"


def _name(device: torch.device) -> bytes:
    if device.type != "cuda":
        return _CPU
    return f"{platform.node()} {torch.cuda.get_device_properties(device).uuid}".encode()
