"""Formulas of one element, compiled to loops over a block.

One loop updates a block and copies the next one, for both wait for memory. Every row of a block is
a view of its own that is indexed from 0: an index that begins elsewhere might be negative for all
that the compiler knows, and such loops get no vector registers.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
from numba import from_dtype, njit, types
from numba.extending import intrinsic, overload

from engine.rules.arithmetic import fma

Formula = Callable[..., Any]
Loop = Callable[..., None]


@cache
def compiled(formula: Formula, num_slots: int, num_constants: int, dtype: np.dtype[Any]) -> Loop:
    """`engine.rules.rule.Update` with a tuple of constants before its own arguments."""
    number = from_dtype(dtype)
    matrix, vector = number[:, ::1], number[::1]
    make_tuple: Any = types.UniTuple
    constants = make_tuple(number, num_constants)
    places = (types.intp,) * 3
    loop = (_without_slots, _with_one_slot, _with_two_slots)[num_slots](_jit()(formula))
    return _jit(types.void(constants, matrix, vector, matrix, *places))(loop)


def _jit(*signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba's compiler. Division by 0 is no error; other threads run meanwhile."""
    compiler: Any = njit(*signature, nogil=True, error_model="numpy")
    return cast(Callable[..., Any], compiler)


def _emit_fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    return x(x, y, z), lambda context, builder, signature, arguments: builder.fma(*arguments)


_fma_instruction: Any = intrinsic(_emit_fma)


@overload(fma)
def _compiled_fma(x: Any, y: Any, z: Any) -> Any:
    def instruction(x: Any, y: Any, z: Any) -> Any:
        return _fma_instruction(x, y, z)

    return instruction


def _without_slots(step: Formula) -> Loop:
    def loop(c: Any, vectors: Any, grad: Any, kept: Any, start: int, stop: int, ahead: int) -> None:
        values, grad = vectors[0, start:stop], grad[start:stop]
        next_values = vectors[0, stop : stop + ahead]
        kept_values = kept[0, :ahead]
        for i in range(ahead):
            kept_values[i] = next_values[i]
            (values[i],) = step(values[i], grad[i], *c)
        values, grad = values[ahead:], grad[ahead:]
        for i in range(len(grad)):
            (values[i],) = step(values[i], grad[i], *c)

    return loop


def _with_one_slot(step: Formula) -> Loop:
    def loop(c: Any, vectors: Any, grad: Any, kept: Any, start: int, stop: int, ahead: int) -> None:
        values, slot, grad = vectors[0, start:stop], vectors[1, start:stop], grad[start:stop]
        next_values, next_slot = vectors[0, stop : stop + ahead], vectors[1, stop : stop + ahead]
        kept_values, kept_slot = kept[0, :ahead], kept[1, :ahead]
        for i in range(ahead):
            kept_values[i], kept_slot[i] = next_values[i], next_slot[i]
            values[i], slot[i] = step(values[i], slot[i], grad[i], *c)
        values, slot, grad = values[ahead:], slot[ahead:], grad[ahead:]
        for i in range(len(grad)):
            values[i], slot[i] = step(values[i], slot[i], grad[i], *c)

    return loop


def _with_two_slots(step: Formula) -> Loop:
    def loop(c: Any, vectors: Any, grad: Any, kept: Any, start: int, stop: int, ahead: int) -> None:
        values, grad = vectors[0, start:stop], grad[start:stop]
        one, two = vectors[1, start:stop], vectors[2, start:stop]
        next_values = vectors[0, stop : stop + ahead]
        next_one, next_two = vectors[1, stop : stop + ahead], vectors[2, stop : stop + ahead]
        kept_values, kept_one, kept_two = kept[0, :ahead], kept[1, :ahead], kept[2, :ahead]
        for i in range(ahead):
            kept_values[i], kept_one[i], kept_two[i] = next_values[i], next_one[i], next_two[i]
            values[i], one[i], two[i] = step(values[i], one[i], two[i], grad[i], *c)
        values, one, two, grad = values[ahead:], one[ahead:], two[ahead:], grad[ahead:]
        for i in range(len(grad)):
            values[i], one[i], two[i] = step(values[i], one[i], two[i], grad[i], *c)

    return loop
