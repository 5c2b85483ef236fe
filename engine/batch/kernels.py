"""Commands carried out on the slices of one shard, and shards' answers put together."""

from collections.abc import Mapping, MutableMapping, Sequence

import torch
from torch import Tensor

from engine.batch.stacks import BLOCK, combine, products
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
    num_scalars,
    reads,
)

ElementWise = Multiply | PseudoGradient | Orthant | Align | KeepSigns


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
    if isinstance(command, Combine):
        terms = [(coefficient, vectors[name]) for coefficient, name in command.terms]
        combine(vectors[command.target], terms)
        return []
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


def _write(command: ElementWise, vectors: Mapping[str, Tensor]) -> None:
    match command:
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


def _reduce(command: Reduction, vectors: Mapping[str, Tensor]) -> list[float]:
    match command:
        case Products(left, right):
            table = products([vectors[name] for name in left], [vectors[name] for name in right])
            answers: list[float] = table.flatten().tolist()
            return answers
        case SumAbs(name):
            return [float(torch.linalg.vector_norm(vectors[name], 1, dtype=torch.float64))]
        case MaxAbs(name):
            vector = vectors[name]
            return [_largest([float(vector[p].abs().max()) for p in _blocks(vector.numel())])]


def _blocks(size: int) -> list[slice]:
    """Stretches of which temporaries stay in the processor's cache."""
    return [slice(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)]
