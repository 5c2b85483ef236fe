"""What the engine needs to know of a learner: the seam between training and everything else."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from engine.layout import Layout
from engine.ledger import Lease


class Minibatch(NamedTuple):
    """Downpour's unit of work; `payload` is whatever the problem's own gradient understands."""

    payload: Any
    num_samples: int


class Problem(Protocol):
    """A gradient-based learner with its data. The engine sees vectors, never what they mean."""

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters; P = layout.size."""
        ...

    @property
    def unit_sizes(self) -> Sequence[int]:
        """Number of training samples in each unit of data (for images: in each tar)."""
        ...

    def initial(self) -> Tensor:
        """Initial parameters, shape (P,); the same at each call."""
        ...

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        """The samples of `lease` in mini-batches of `size`; the last one may be smaller.

        The same lease gives the same samples in the same order, whoever reads it.
        """
        ...

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor) -> float:
        """Overwrite `grad` (P,) with the gradient of the mean loss at `parameters` (P,).

        Returns:
            The mean loss over the mini-batch.
        """
        ...

    def loss(self, parameters: Tensor, payload: Any) -> float:
        """The mean loss at `parameters` (P,), to the last bit what `gradient_` returns.

        Random parts such as dropout draw the same way in both, from torch's generator, which the
        engine seeds before each call (`engine.draws`).
        """
        ...

    def validate(self, parameters: Tensor) -> dict[str, float]:
        """Measures on held-out data by name, at `parameters` (P,); may be empty."""
        ...


#: Builds the problem inside the process that works on it; travels there pickled by Dask.
ProblemFactory = Callable[[], Problem]


def build(factory: ProblemFactory) -> Problem:
    """Call the factory, and see that a problem comes out.

    Raises:
        TypeError: it cannot be called, or gives something else.
    """
    if not callable(factory):
        raise TypeError(
            f"got a {type(factory).__name__} for the problem's factory: want a function that "
            "builds the problem, for each process builds its own"
        )
    problem = factory()
    if not hasattr(problem, "layout"):
        raise TypeError(f"the factory gave {problem!r:.80}: want an engine.problem.Problem")
    return problem


def require_samples(problem: Problem) -> None:
    """Refuse to train on nothing.

    Raises:
        ValueError: the problem has no training sample.
    """
    if not sum(problem.unit_sizes):
        sizes = tuple(problem.unit_sizes)
        raise ValueError(f"unit_sizes={sizes}: the problem has no training sample, want some")
