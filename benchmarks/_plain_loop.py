"""The rival: a plain torch loop of one thread in a process of its own, told when to run."""

import multiprocessing as mp
import os
import time
from multiprocessing.connection import Connection

import torch

from benchmarks._subject import minibatch_pool
from engine.config import AdagradConfig, MomentumConfig, RuleConfig
from engine.device import computing_device, on_device
from models.config import ModelConfig
from models.vgg import build_vgg
from tasks.cluster import environment_at_start


class PlainLoops:
    """Several independent loops, running at the same time for a given time, then waiting."""

    def __init__(
        self, count: int, net: ModelConfig, minibatch_size: int, rule: RuleConfig, *, tuned: bool
    ) -> None:
        """Start the processes; with `tuned` they get the malloc settings that our replicas have.

        Without, they get none: Dask leaves those of its workers in this process's environment.
        """
        malloc = environment_at_start()
        context = mp.get_context("spawn")
        before = dict(os.environ)
        for name in malloc:
            os.environ.pop(name, None)
        os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        os.environ.update(malloc if tuned else {})
        self._pipes = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            args = (theirs, net, minibatch_size, rule)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        os.environ.clear()
        os.environ.update(before)
        self.run(1.0)

    def run(self, seconds: float) -> float:
        """Images per second of all loops together over `seconds`."""
        for pipe in self._pipes:
            pipe.send(seconds)
        return float(sum(pipe.recv() for pipe in self._pipes))

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join()


def _serve(pipe: Connection, net: ModelConfig, minibatch_size: int, rule: RuleConfig) -> None:
    torch.set_num_threads(1)
    device = computing_device()
    pool = minibatch_pool(minibatch_size)
    model = build_vgg(net, 10).to(device).train()
    parameters = list(model.parameters())
    optimiser = _fused(rule, parameters)
    loss_function = torch.nn.CrossEntropyLoss()
    while True:
        try:
            seconds = pipe.recv()
        except EOFError:
            return
        start, num_images = time.monotonic(), 0
        while time.monotonic() - start < seconds:
            images, labels = on_device(pool[num_images // minibatch_size % len(pool)], device)
            optimiser.zero_grad(set_to_none=True)
            loss_function(model(images), labels).backward()
            optimiser.step()
            num_images += len(labels)
        if device.type == "cuda":
            torch.cuda.synchronize()  # what was asked for counts once it is done
        pipe.send(num_images / (time.monotonic() - start))


def _fused(rule: RuleConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    match rule:
        case MomentumConfig():
            return torch.optim.SGD(
                parameters,
                lr=rule.learning_rate,
                momentum=rule.momentum,
                weight_decay=rule.weight_decay,
                fused=True,
            )
        case AdagradConfig():
            fused = parameters[0].device.type == "cpu"  # torch has it there only
            return torch.optim.Adagrad(parameters, lr=rule.gamma, fused=fused)
        case _:
            raise ValueError(f"no plain loop is written for {type(rule).__name__}")
