"""What a parameter shard asks of an update rule, and how a formula becomes one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Dtype = np.dtype[Any]


class Update(Protocol):
    """What one push does to blocks, and the copies of the next block that can undo each step."""

    def __call__(
        self,
        vectors: Array,
        grad: Array,
        undo: Array,
        marks: Array,
        size: int,
        end: int,
        first: int,
        last: int,
    ) -> None:
        """Update blocks `first` to `last` - 1, and copy each block behind one meanwhile.

        When block k is updated and k + 1 copied, k + 1 is stored to marks[0], then to marks[1].

        Args:
            vectors: values and slots, shape (1 + num_slots, P) or wider, rows contiguous.
            grad: only read, shape (P,), of the same type.
            undo: of which [k % 2] takes the copy of block k, shape (2, 1 + num_slots, size).
            marks: int64, shape (2,).
            size: columns of a block; block k begins at column k * size.
            end: P, where the last block ends.
        """
        ...


class UpdateRule(Protocol):
    """How a gradient changes parameters. Elementwise: any block may be updated on its own."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state vectors that it keeps beside the parameters, all starting at 0."""
        ...

    def compile(self, dtype: Dtype) -> None:
        """Be ready to update vectors of this type; takes half a second, once in a process."""
        ...

    def update(self, dtype: Dtype, scale: float, step: int) -> Update:
        """What one push does.

        Args:
            scale: factor on the configured rate, from the learning-rate schedule.
            step: how many updates these parameters have had when this one is done.
        """
        ...


@dataclass(frozen=True)
class ElementwiseRule:
    """A rule given by its formula for one element.

    `formula` takes the element's value, its slots, its gradient and then `constants`; it returns
    the new value and the new slots. All are of the vectors' type, and so must be what it computes:
    a float literal in it would make that float64.
    """

    slots: tuple[str, ...]
    formula: Callable[..., tuple[float, ...]]
    constants: Callable[[Dtype, float, int], tuple[float, ...]]  # as `update`'s arguments

    def compile(self, dtype: Dtype) -> None:
        self.update(dtype, 1.0, 1)

    def update(self, dtype: Dtype, scale: float, step: int) -> Update:
        from engine.rules.loops import compiled  # numba is for processes that hold shards only

        constants = tuple(map(dtype.type, self.constants(dtype, scale, step)))
        return partial(compiled(self.formula, len(self.slots), len(constants), dtype), constants)
