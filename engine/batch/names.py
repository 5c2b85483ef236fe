"""Names of an optimiser's vectors.

Nothing that a committed record names is overwritten before the next one is committed. So points,
gradients and the like come in twos, the committed one and the next, and the history has room for
one pair more than it keeps.
"""

from collections.abc import Collection, Iterator

#: Where the driver puts the initial point.
START = "x0"


def s(slot: int) -> str:
    """The difference of two points in a slot of the history."""
    return f"s{slot}"


def y(slot: int) -> str:
    """The difference of two gradients in a slot of the history."""
    return f"y{slot}"


def twin(name: str) -> str:
    """The other one of a pair of names: x0 and x1, grad0 and grad1."""
    return f"{name[:-1]}{1 - int(name[-1])}"


def twins(*stems: str) -> Iterator[str]:
    """Both names of each stem."""
    for stem in stems:
        yield from (f"{stem}0", f"{stem}1")


def spare(slots: Collection[int]) -> int:
    """The first slot of the history that is free."""
    return next(slot for slot in range(len(slots) + 1) if slot not in slots)


def slots(history_length: int) -> Iterator[str]:
    """Names of the whole history, the spare pair included."""
    yield from map(s, range(history_length + 1))
    yield from map(y, range(history_length + 1))
