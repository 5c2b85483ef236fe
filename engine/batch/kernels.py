"""Commands carried out on the slices of one shard, and shards' answers put together."""

from collections.abc import Mapping, MutableMapping, Sequence

import torch
from torch import Tensor

from engine.batch.vector import (
    Align,
    Combine,
    Command,
    KeepSigns,
    MaxAbs,
    Multiply,
    Orthant,
    Products,
    PseudoGradient,
    Reduction,
    SumAbs,
    Write,
    num_scalars,
    reads,
)

#: Elements worked on at a time: temporaries stay in the processor's cache, those of a Gram
#: matrix, in double precision, for all its vectors at once.
BLOCK, GRAM_BLOCK = 65536, 16384


def check_known(commands: Sequence[Command], vectors: Mapping[str, Tensor]) -> None:
    """Raise KeyError if the batch reads a vector that neither exists nor is written before."""
    known = set(vectors)
    for command in commands:
        if unknown := sorted(set(reads(command)) - known):
            raise KeyError(f"{command} reads {unknown}, the store has {sorted(known)}")
        if not isinstance(command, Reduction):
            known.add(command.target)


def carry_out(command: Command, vectors: MutableMapping[str, Tensor]) -> list[float]:
    """Carry out one command on this shard's slices, each (n,); return the shard's share.

    The target must exist in `vectors` (see `engine.batch.vector.writes`).
    """
    if isinstance(command, Reduction):
        return _reduce(command, vectors)
    for part in _blocks(vectors[command.target].numel()):
        names = (command.target, *reads(command))
        _write(command, {name: vectors[name][part] for name in names})
    return []


def merge(commands: Sequence[Command], shares: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """One batch's answers from every shard's, in the order of the shards.

    Args:
        shares: for each shard its scalars for the whole batch, one after another.
    """
    largest = [isinstance(c, MaxAbs) for c in commands for _ in range(num_scalars(c))]
    return tuple(
        _largest(column) if take_largest else sum(column)
        for take_largest, column in zip(largest, zip(*shares, strict=True), strict=True)
    )


def _largest(values: Sequence[float]) -> float:
    return max(values, key=lambda value: (value != value, value))  # NaN counts as the largest


def _write(command: Write, vectors: Mapping[str, Tensor]) -> None:
    match command:
        case Combine(target, terms):
            _combine(vectors[target], [(c, vectors[name]) for c, name in terms])
        case Multiply(target, left, right):
            torch.mul(vectors[left], vectors[right], out=vectors[target])
        case PseudoGradient(target, point, grad, l1):
            x, g = vectors[point], vectors[grad]
            at_zero = g.sign() * (g.abs() - l1).clamp_(min=0)
            torch.where(x == 0, at_zero, g + l1 * x.sign(), out=vectors[target])
        case Orthant(target, point, pseudo):
            x = vectors[point]
            torch.where(x == 0, -vectors[pseudo].sign(), x.sign(), out=vectors[target])
        case Align(target, direction, point, pseudo):
            u = vectors[direction]
            kept = (vectors[point] != 0) | (u * vectors[pseudo] < 0)
            torch.mul(u, kept, out=vectors[target])
        case KeepSigns(target, values, signs):
            u = vectors[values]
            torch.mul(u, u.sign() == vectors[signs].sign(), out=vectors[target])


def _combine(target: Tensor, terms: Sequence[tuple[float, Tensor]]) -> None:
    if not terms:
        target.zero_()
        return
    (coefficient, vector), *rest = terms
    torch.mul(vector, coefficient, out=target)
    for coefficient, vector in rest:
        target.add_(vector, alpha=coefficient)


def _reduce(command: Reduction, vectors: Mapping[str, Tensor]) -> list[float]:
    match command:
        case Products(left, right):
            return _products(left, right, vectors)
        case SumAbs(name):
            return [float(torch.linalg.vector_norm(vectors[name], 1, dtype=torch.float64))]
        case MaxAbs(name):
            vector = vectors[name]
            return [_largest([float(vector[p].abs().max()) for p in _blocks(vector.numel())])]


def _products(
    left: Sequence[str], right: Sequence[str], vectors: Mapping[str, Tensor]
) -> list[float]:
    names = list(dict.fromkeys((*right, *left)))  # each vector is read once
    rows = [names.index(name) for name in left]
    columns = [names.index(name) for name in right]
    size = vectors[names[0]].numel()
    block = torch.empty(len(names), min(size, GRAM_BLOCK), dtype=torch.float64)
    total = torch.zeros(len(left), len(names), dtype=torch.float64)
    for part in _blocks(size, GRAM_BLOCK):
        filled = block[:, : part.stop - part.start]
        for row, name in zip(filled, names, strict=True):
            row.copy_(vectors[name][part])
        total += filled[rows] @ filled.T
    products: list[float] = total[:, columns].flatten().tolist()
    return products


def _blocks(size: int, length: int = BLOCK) -> list[slice]:
    return [slice(first, min(first + length, size)) for first in range(0, size, length)]
