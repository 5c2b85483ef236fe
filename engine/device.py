"""On which device gradients are computed: a GPU where torch sees one, else the processor."""

from typing import Any

import torch
from torch import Tensor

from engine.config import Device
from engine.problem import Problem


class NoGpuError(ValueError):
    """A GPU was asked for, and torch sees none."""


def computing_device(wanted: Device = "auto") -> torch.device:
    """The device that `wanted` means in this process; on a GPU the current one.

    Raises:
        NoGpuError: "cuda" where torch sees no GPU.
    """
    if wanted != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if wanted == "cuda":
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without"
        raise NoGpuError(
            f"device=cuda, but torch {torch.__version__} ({built}) sees no GPU here: want device="
            "auto or cpu, or a build of torch for CUDA and the GPU's driver"
        )
    return torch.device("cpu")


def take_gpu(index: int) -> None:
    """Of several GPUs make one the current one: replica `index` of a host's takes each in turn.

    Where each worker sees one GPU (CUDA_VISIBLE_DEVICES), that is it. To be called before the
    problem is built.
    """
    if (count := torch.cuda.device_count()) > 1:  # asking does not initialise CUDA
        torch.cuda.set_device(index % count)


def device_of(problem: Problem) -> torch.device:
    """Where `problem` computes; one that does not say so computes on the processor."""
    device: torch.device = getattr(problem, "device", torch.device("cpu"))
    return device


def on_device(payload: Any, device: torch.device) -> Any:
    """`payload` with its tensors on `device`, those in tuples, lists and dictionaries too."""
    if device.type == "cpu":
        return payload
    match payload:
        case Tensor():
            return payload.to(device, non_blocking=True)
        case dict():
            return {key: on_device(value, device) for key, value in payload.items()}
        case tuple() | list():
            moved = [on_device(value, device) for value in payload]
            named = hasattr(payload, "_fields")
            return type(payload)(*moved) if named else type(payload)(moved)
    return payload
