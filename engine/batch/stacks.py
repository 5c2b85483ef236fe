"""Sums of many vectors and their inner products, each in one pass over memory.

Vectors that lie at equal distances in one piece of memory, as `LocalStore.reserve` lays them out,
are the rows of a matrix: one product with it takes the place of a call for each of them.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

#: Elements of a sum worked on at a time, and bytes of a block of vectors in double precision of
#: which all inner products are taken: either stays in a core's cache.
BLOCK, GRAM_BYTES = 65536, 3 << 18
_LINE = 16  # elements of single precision in a cache line


def stacked(vectors: Sequence[Tensor]) -> list[Tensor]:
    """The vectors, each (n,), in their order as the rows of as few matrices as can be seen."""
    groups: list[list[Tensor]] = []
    for vector in vectors:
        if groups and _continues(groups[-1], vector):
            groups[-1].append(vector)
        else:
            groups.append([vector])
    return [_matrix(group) for group in groups]


def combine(target: Tensor, terms: Sequence[tuple[float, Tensor]]) -> None:
    """target (n,) = sum of coefficient * vector over `terms`, of which it is none."""
    if not terms:
        target.zero_()
        return
    # Something + c * vector is one pass where 1 * something first is two.
    first = [terms[0][1][None]] if terms[0][0] == 1.0 and len(terms) > 1 else []
    terms = terms[len(first) :]
    matrices = stacked([vector for _, vector in terms])
    coefficients = torch.tensor([[c for c, _ in terms]], dtype=target.dtype)
    rows = torch.split(coefficients, [len(matrix) for matrix in matrices], dim=1)
    for out, *parts in _in_blocks([target[None], *first, *matrices], BLOCK):
        before = parts.pop(0) if first else None
        for coefficient, part in zip(rows, parts, strict=True):
            _add(out, before, coefficient, part)
            before = out


def products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner products (len(left), len(right)), multiplied and summed in double precision.

    Vectors of `left` that are in `right` too are read once.
    """
    places = {id(vector): place for place, vector in enumerate(left)}
    others = [vector for vector in right if id(vector) not in places]
    places |= {id(vector): place for place, vector in enumerate(others, start=len(left))}
    matrices = stacked([*left, *others])
    num_rows = len(left) + len(others)
    # A multiple of a cache line, so that every row of the block begins on one.
    length = max(_LINE, GRAM_BYTES // (8 * num_rows) // _LINE * _LINE)
    block = torch.empty(num_rows, min(length, len(left[0])), dtype=torch.float64)
    total = torch.zeros(len(left), num_rows, dtype=torch.float64)
    sizes = [len(matrix) for matrix in matrices]
    # Views are made once: to make one of a few rows takes as long as to fill them.
    rows, transposed = torch.split(block, sizes), block.T
    for parts in _in_blocks(matrices, length):
        if parts[0].shape[1] < len(transposed):  # the last ones
            block = block[:, : parts[0].shape[1]]
            rows, transposed = torch.split(block, sizes), block.T
        for row, part in zip(rows, parts, strict=True):
            row.copy_(part)
        total.addmm_(block[: len(left)], transposed)
    return total[:, [places[id(vector)] for vector in right]]


def _add(out: Tensor, before: Tensor | None, coefficients: Tensor, rows: Tensor) -> None:
    """out (1, n) = before + coefficients (1, k) @ rows (k, n)."""
    if len(rows) == 1:
        alpha = float(coefficients)
        if before is None:
            torch.mul(rows, alpha, out=out)
        else:
            torch.add(before, rows, alpha=alpha, out=out)
    elif before is None:
        torch.mm(coefficients, rows, out=out)
    else:
        torch.addmm(before, coefficients, rows, out=out)


def _in_blocks(matrices: Sequence[Tensor], length: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(matrix, length, dim=1) for matrix in matrices), strict=True)


def _continues(group: Sequence[Tensor], vector: Tensor) -> bool:
    last = group[-1]
    distance = vector.storage_offset() - last.storage_offset()
    if vector.untyped_storage().data_ptr() != last.untyped_storage().data_ptr():
        return False
    if len(group) == 1:
        return distance >= len(vector)
    return distance == last.storage_offset() - group[-2].storage_offset()


def _matrix(group: Sequence[Tensor]) -> Tensor:
    first = group[0]
    if len(group) == 1:
        return first[None]
    distance = group[1].storage_offset() - first.storage_offset()
    return first.as_strided((len(group), len(first)), (distance, 1))
