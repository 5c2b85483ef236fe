"""Which shards a replica talks to: those that hold the tensors that it works on.

Dean et al. 2012, 4.1: a machine of a replica communicates only with the parameter server shards
that hold the parameters relevant to its partition. Unless a problem says otherwise, a replica works
on the whole model, and so with every shard.
"""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from engine.layout import Layout
from engine.problem import Problem


@runtime_checkable
class Partitioned(Protocol):
    """What a `Problem` has besides if each of its replicas works on some of the tensors only.

    An ensemble of which each replica trains a member, experts or subnetworks that share a trunk.
    Downpour alone asks: to all other algorithms the problem is whole.
    """

    def tensors_of(self, replica: int) -> Collection[str]:
        """Names of the tensors that this replica reads and changes, counted from 0."""
        ...

    def of_replica(self, replica: int) -> Problem:
        """The problem as this replica sees it, of the same layout and data.

        Parameters of other tensors are 0 there, unless they share a shard with its own, and its
        gradients must be. A shard applies a push to all that it holds: weight decay and momentum
        act on a shard's other tensors, too.
        """
        ...


def problem_of(problem: Problem, replica: int) -> Problem:
    """The problem as one replica works on it: itself, or that replica's partition."""
    return problem.of_replica(replica) if isinstance(problem, Partitioned) else problem


def shards_by_replica(
    problem: Problem, num_replicas: int, slices: Sequence[slice]
) -> tuple[tuple[int, ...], ...]:
    """For each replica the shards, which cut the vector at `slices`, that it talks to.

    Raises:
        ValueError: a replica works on no tensor, or on one that the layout does not name.
    """
    if not isinstance(problem, Partitioned):
        return (tuple(range(len(slices))),) * num_replicas
    layout, partitions = problem.layout, map(problem.tensors_of, range(num_replicas))
    return tuple(_shards(k, names, layout, slices) for k, names in enumerate(partitions))


def _shards(
    replica: int, names: Collection[str], layout: Layout, slices: Sequence[slice]
) -> tuple[int, ...]:
    if unknown := set(names) - set(layout.names):
        raise ValueError(
            f"tensors_of({replica}) names {', '.join(sorted(unknown))}: "
            f"the layout has {', '.join(layout.names)}"
        )
    if not (shards := layout.shards_of(names, slices)):
        raise ValueError(f"tensors_of({replica}) gives no parameter: want a tensor or more")
    return shards
