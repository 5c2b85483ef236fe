"""A torch module and a loss as a `Problem`: its parameters become views into flat vectors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.copying import copy_
from engine.device import on_device
from engine.layout import Layout
from engine.ledger import Lease
from engine.pinned import Pinned
from engine.problem import Minibatch

#: (module, payload) -> mean loss over the mini-batch, a scalar that backward() accepts.
Loss = Callable[[nn.Module, Any], Tensor]
Minibatches = Callable[[Lease, int], Iterator[Minibatch]]


def no_measures(module: nn.Module) -> dict[str, float]:
    """Validation for problems without held-out data."""
    return {}


class TorchProblem:
    """Gradients of a module by autograd, on whatever device the module lives.

    On a GPU payloads are moved there and gradients come back while the backward pass goes on;
    parameters and gradients may be vectors in main memory or on the GPU itself.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        unit_sizes: Sequence[int],
        minibatches: Minibatches,
        measure: Callable[[nn.Module], Mapping[str, float]] = no_measures,
    ) -> None:
        """Wrap `module`, whose present parameters become the initial ones.

        Parameters that require no gradient are not trained, and no part of the vector: they, like
        buffers, are those that the module has in each process.

        Args:
            unit_sizes: training samples in each unit of data.
            minibatches: reads one lease, see `Problem.minibatches`.
            measure: measures on held-out data; the module is in evaluation mode.

        Raises:
            ValueError: no parameter requires a gradient, or their types differ.
        """
        self._module = self._called = module
        self._loss = loss
        self._measure = measure
        named = module.named_parameters()
        self._named = {name: own for name, own in named if own.requires_grad}
        if not self._named:
            raise ValueError(
                f"{type(module).__name__} has no parameter that requires a gradient: nothing to "
                "train"
            )
        self.layout = Layout.of(self._named)
        self._initial = self.layout.flatten(self._named)
        self._bound: dict[int, _Bound] = {}
        self._targets: Mapping[str, Tensor] = {}
        self._written: set[str] = set()
        for name, parameter in self._named.items():
            hook: Any = parameter.register_post_accumulate_grad_hook  # without annotations
            hook(partial(self._keep, name))
        self.unit_sizes = unit_sizes
        self.minibatches = minibatches
        if self.device.type == "cuda":
            # The same bits for the same samples, as on the processor: runs are repeated by them.
            torch.backends.cudnn.deterministic = True

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        return next(self._module.parameters()).device

    def call_through(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Compute losses through `wrap(module)` from now on, as torch's data parallelism wants."""
        self._called = wrap(self._module)

    def initial(self) -> Tensor:
        return self._initial.clone()

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor) -> float:
        self._load(self._views(parameters))
        self._module.train()
        for parameter in self._named.values():
            parameter.grad = None
        self._targets = self._views(grad)
        self._written.clear()
        loss = _scalar(self._loss(self._called, on_device(payload, self.device)))
        if not loss.requires_grad:
            raise ValueError("the loss depends on no parameter: want one that backward() accepts")
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without annotations
        for name in self._targets.keys() - self._written:
            self._targets[name].zero_()
        return float(loss.detach())  # on a GPU this waits for all copies before it

    def loss(self, parameters: Tensor, payload: Any) -> float:
        self._load(self._views(parameters))
        self._module.train()
        with torch.no_grad():
            return float(_scalar(self._loss(self._module, on_device(payload, self.device))))

    def _keep(self, name: str, parameter: Tensor) -> None:
        """Copy a gradient as soon as it is complete, while it is still in the cache."""
        assert parameter.grad is not None
        target = self._targets[name]
        if target.device == parameter.device:
            copy_(target, parameter.grad)
        else:
            target.copy_(parameter.grad, non_blocking=True)
        self._written.add(name)

    def validate(self, parameters: Tensor) -> dict[str, float]:
        self._load(self.layout.views(parameters))
        self._module.eval()
        with torch.inference_mode():
            return dict(self._measure(self._module))

    def _load(self, views: Mapping[str, Tensor]) -> None:
        for name, view in views.items():
            own = self._named[name]
            if own.device == view.device:
                own.data = view  # no copy: the module computes on the fetched vector itself
            else:
                own.data.copy_(view, non_blocking=True)

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        """Named views into `flat`, remembered: the engine uses the same few vectors for ever."""
        key = flat.data_ptr()
        if key not in self._bound:
            if len(self._bound) >= 16:
                self._bound.clear()
            away = self.device.type == "cuda" and flat.device.type == "cpu"
            self._bound[key] = _Bound(self.layout.views(flat), Pinned(flat) if away else None)
        return self._bound[key].views


class _Bound(NamedTuple):
    """A vector that the engine uses, cut into the module's parameters."""

    views: dict[str, Tensor]
    pinned: Pinned | None


def _scalar(loss: Tensor) -> Tensor:
    """Refuse what users' losses give by mistake."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise ValueError(f"the loss gave {given}: want the mini-batch's mean, a scalar tensor")
    return loss
