"""A crop's way into a mini-batch: flipped, as float32, shifted, in one pass and past the caches."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

RGB: Final = 3
LANES: Final = 16  # float32 of a cache line: only whole ones are written past the caches
LINE_BYTES: Final = 4 * LANES
BLOCK: Final = RGB * LANES  # values of so many pixels

_INDEX, _NUMBER = ir.IntType(64), ir.IntType(32)
_BYTES = ir.VectorType(ir.IntType(8), BLOCK)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


@njit(nogil=True)
def _paint_values(row: Any, crop: Any, width: int, flip: bool, offset: Any) -> None:
    for start in range(0, len(row), width):
        for i in range(0, width, RGB):
            source = start + (width - RGB - i if flip else i)
            for channel in range(RGB):
                row[start + i + channel] = np.float32(crop[source + channel]) + offset[channel]


@njit(nogil=True)
def _paint_lines(row: Any, crop: Any, width: int, flip: bool, offset: Any) -> None:
    for start in range(0, len(row), width):
        if flip:
            for i in range(0, width, BLOCK):
                _flipped_block(row, start + i, crop, start + width - BLOCK - i, offset)
        else:
            for i in range(start, start + width, BLOCK):
                _block(row, i, crop, i, offset)


def _painter_of_a_block(order: list[int]) -> Any:
    """Vector instructions that numba has no words for: row[i : i + 48] = crop[j : j + 48][order].

    No instruction of x86 stores so without alignment, and for single values there is none at all.
    """

    @intrinsic
    def block(typing: Any, row: Any, i: Any, crop: Any, j: Any, offset: Any) -> Any:
        signature = types.void(row, i, crop, j, offset)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def pointer(array: int, index: Any, vector: Any) -> Any:
                made = context.make_array(signature.args[array])
                data = made(context, builder, arguments[array]).data
                return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

            past_caches = builder.module.add_metadata([ir.Constant(_NUMBER, 1)])
            pixels = builder.load(pointer(2, arguments[3], _BYTES), align=1)
            for first in range(0, BLOCK, LANES):
                chosen = ir.Constant(ir.VectorType(_NUMBER, LANES), order[first : first + LANES])
                part = builder.shuffle_vector(pixels, ir.Constant(_BYTES, ir.Undefined), chosen)
                at = ir.Constant(_INDEX, first)
                added = builder.load(pointer(4, at, _FLOATS), align=4)
                values = builder.fadd(builder.uitofp(part, _FLOATS), added)
                place = pointer(0, builder.add(arguments[1], at), _FLOATS)
                store = builder.store(values, place, align=LINE_BYTES)
                store.set_metadata("nontemporal", past_caches)
            return context.get_dummy_value()

        return signature, generate

    return block


_block = _painter_of_a_block(list(range(BLOCK)))
_flipped_block = _painter_of_a_block(
    [BLOCK - RGB * (pixel + 1) + channel for pixel in range(LANES) for channel in range(RGB)]
)


@njit(nogil=True)
def paint(
    row: npt.NDArray[np.float32],
    crop: npt.NDArray[np.uint8],
    flip: bool,
    offset: npt.NDArray[np.float32],
) -> None:
    """Fill an image of a mini-batch with a crop, plus an offset, flipped left to right or not.

    A mini-batch is larger than the caches. Written through them, its lines would be read from
    memory first, and push out what the next image needs: 0.075 ms an image instead of 0.03.

    Args:
        row: (size * size * 3,), contiguous.
        crop: (size, size, 3), contiguous.
        offset: (48,), that of RGB 16 times.
    """
    width = RGB * len(crop)
    if width % BLOCK == 0 and row.ctypes.data % LINE_BYTES == 0:
        _paint_lines(row, crop.reshape(-1), width, flip, offset)
    else:
        _paint_values(row, crop.reshape(-1), width, flip, offset)
