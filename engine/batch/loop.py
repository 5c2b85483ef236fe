"""The loop that every batch optimiser shares: step, commit, stop."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from engine.batch.config import BatchConfig
from engine.batch.iterate import Iterate, Outcome, Solution, outcome
from engine.batch.program import Ask, Commit

#: What a method remembers between iterations: a frozen dataclass of scalars and names.
M = TypeVar("M")
Record = Mapping[str, Any]


class Method(Protocol, Generic[M]):
    """One way to get from an iterate to the next."""

    @property
    def config(self) -> BatchConfig:
        """Its settings."""
        ...

    @property
    def memory(self) -> type[M]:
        """The class of what it remembers."""
        ...

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of all vectors that it may write or read."""
        ...

    def start(self, counts: Counter[str]) -> Ask[tuple[Iterate, M]]:
        """Evaluate the initial point, which lies in `names.START`."""
        ...

    def step(self, at: Iterate, memory: M, counts: Counter[str]) -> Ask[tuple[Iterate, M] | None]:
        """The next iterate, or None when no step was found."""
        ...

    def forget(self, memory: M) -> M | None:
        """The memory to try again with when no step was found; None: there is nothing to drop."""
        ...


def optimise(method: Method[M], record: Record | None) -> Ask[Solution]:
    """The program of `method`.

    Args:
        record: what the last `Commit` held, to go on from there.
    """
    counts: Counter[str] = Counter()
    if record is None:
        at, memory = yield from method.start(counts)
        at = replace(at, counts=dict(counts))
        yield _commit(method, at, memory)
    else:
        at, memory = _restore(method, record)
        counts.update(at.counts)
    while (ended := outcome(at, method.config)) is None:
        taken = yield from method.step(at, memory, counts)
        if taken is not None:
            at, memory = replace(taken[0], counts=dict(counts)), taken[1]
            yield _commit(method, at, memory)
        elif (less := method.forget(memory)) is not None:
            # Committed, because the pairs of the record before will be overwritten.
            memory = less
            counts["resets"] += 1
            at = replace(at, counts=dict(counts))
            yield _commit(method, at, memory)
        else:
            return Solution(Outcome.LINE_SEARCH, replace(at, counts=dict(counts)))
    return Solution(ended, at)


def _commit(method: Method[M], at: Iterate, memory: M) -> Commit:
    values = {"iterate": asdict(at), "memory": asdict(memory)}  # type: ignore[call-overload]
    return Commit({"method": type(method).__name__, **values})


def _restore(method: Method[M], record: Record) -> tuple[Iterate, M]:
    wanted = type(method).__name__
    if record.get("method") != wanted:
        raise ValueError(
            f"the record is one of {record.get('method')!r}, the configuration asks for "
            f"{wanted!r}: go on with the configuration that wrote it, or start anew"
        )
    at = TypeAdapter(Iterate).validate_python(record["iterate"])
    return at, TypeAdapter(method.memory).validate_python(record["memory"])
