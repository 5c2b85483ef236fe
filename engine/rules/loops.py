"""Formulas of one element, compiled to loops over blocks.

One loop updates a block and copies the next one, for both wait for memory. Blocks are so small that
what is updated and both copies stay in the core's first cache. Every row of a block is a view of
its own that is indexed from 0: an index that begins elsewhere might be negative for all that the
compiler knows, and such loops get no vector registers. All is read before anything is written: on
some processors a read waits for an earlier write whose address ends in the same twelve bits, as
those of rows do.
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
    matrix, vector, undo = number[:, ::1], number[::1], number[:, :, ::1]
    make_tuple: Any = types.UniTuple
    constants = make_tuple(number, num_constants)
    signature = types.void(constants, matrix, vector, undo, types.int64[::1], *(types.intp,) * 4)
    block = _jit(forceinline=True)(_BLOCKS[num_slots](_jit()(formula)))
    return _jit(signature)(sweep(block))


def sweep(update_block: Loop) -> Loop:
    """Blocks one after the other, each noted in `marks` once it is updated and the next is kept."""

    def loop(
        c: Any,
        vectors: Any,
        grad: Any,
        undo: Any,
        marks: Any,
        size: int,
        end: int,
        first: int,
        last: int,
    ) -> None:
        for block in range(first, last):
            start = block * size
            stop = min(start + size, end)
            ahead = min(stop + size, end) - stop
            update_block(c, vectors, grad, undo[(block + 1) % 2], start, stop, ahead)
            mark(marks, 0, block + 1)
            mark(marks, 1, block + 1)

    return loop


def interpreted(formula: Formula, num_slots: int) -> Loop:
    """What `compiled` compiles, as Python does it."""
    return sweep(_BLOCKS[num_slots](formula))


def _jit(*signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba's compiler. Division by 0 is no error; other threads run meanwhile."""
    compiler: Any = njit(*signature, nogil=True, error_model="numpy", **options)
    return cast(Callable[..., Any], compiler)


def _emit_fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    return x(x, y, z), lambda context, builder, signature, arguments: builder.fma(*arguments)


_fma_instruction: Any = intrinsic(_emit_fma)


@overload(fma)
def _compiled_fma(x: Any, y: Any, z: Any) -> Any:
    def instruction(x: Any, y: Any, z: Any) -> Any:
        return _fma_instruction(x, y, z)

    return instruction


def _emit_mark(typing: Any, marks: Any, index: Any, block: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        builder.fence("seq_cst", "singlethread")  # no instruction: the compiler keeps the order
        builder.store_atomic(arguments[2], place, "monotonic", 8)
        builder.fence("seq_cst", "singlethread")
        return context.get_dummy_value()

    return types.void(marks, index, block), emit


_mark_instructions: Any = intrinsic(_emit_mark)


def mark(marks: Any, index: int, block: int) -> None:
    """Store after all that was stored before and before all that comes, as a successor sees it."""
    marks[index] = block


@overload(mark)
def _compiled_mark(marks: Any, index: Any, block: Any) -> Any:
    def instructions(marks: Any, index: Any, block: Any) -> Any:
        _mark_instructions(marks, index, block)

    return instructions


def _without_slots(step: Formula) -> Loop:
    def loop(c: Any, vectors: Any, grad: Any, kept: Any, start: int, stop: int, ahead: int) -> None:
        values, grad = vectors[0, start:stop], grad[start:stop]
        next_values = vectors[0, stop : stop + ahead]
        kept_values = kept[0, :ahead]
        for i in range(ahead):
            (value,) = step(values[i], grad[i], *c)
            kept_values[i], values[i] = next_values[i], value
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
            new = step(values[i], slot[i], grad[i], *c)
            kept_values[i], kept_slot[i] = next_values[i], next_slot[i]
            values[i], slot[i] = new
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
            new = step(values[i], one[i], two[i], grad[i], *c)
            kept_values[i], kept_one[i], kept_two[i] = next_values[i], next_one[i], next_two[i]
            values[i], one[i], two[i] = new
        values, one, two, grad = values[ahead:], one[ahead:], two[ahead:], grad[ahead:]
        for i in range(len(grad)):
            values[i], one[i], two[i] = step(values[i], one[i], two[i], grad[i], *c)

    return loop


#: By the number of slots, what updates one block, given the formula.
_BLOCKS = (_without_slots, _with_one_slot, _with_two_slots)
