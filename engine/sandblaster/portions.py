"""Portions of the data: pieces of a batch, much smaller than 1/N of it (Dean et al. 2012, 4.2)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Portion(NamedTuple):
    """Samples [start, stop) of one unit of the data; `number` is its place in the whole data."""

    number: int
    unit: int
    start: int
    stop: int

    @property
    def num_samples(self) -> int:
        return self.stop - self.start


def cut_data(unit_sizes: Sequence[int], portion_size: int) -> tuple[Portion, ...]:
    """Cut every unit into portions of `portion_size` samples, the last one of what remains."""
    portions: list[Portion] = []
    for unit, size in enumerate(unit_sizes):
        for start in range(0, size, portion_size):
            stop = min(start + portion_size, size)
            portions.append(Portion(len(portions), unit, start, stop))
    return tuple(portions)


def clipped(portions: Iterable[Portion], start: int, stop: int) -> tuple[Portion, ...]:
    """What lies in samples [start, stop) of the data, numbered through all units."""
    kept, first = [], 0
    for portion in portions:
        low, high = max(start - first, 0), min(stop - first, portion.num_samples)
        if low < high:
            begin = portion.start
            kept.append(portion._replace(start=begin + low, stop=begin + high))
        first += portion.num_samples
    return tuple(kept)
