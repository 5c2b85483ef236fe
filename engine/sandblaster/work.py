"""A replica's work: the loss of each portion, and one gradient summed over all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from engine.draws import seed_draws, seed_of
from engine.frames import Message
from engine.ledger import Lease
from engine.problem import Minibatch, Problem


@dataclass(frozen=True)
class WorkOrder:
    """What a replica is asked to compute, in one evaluation."""

    work: int
    evaluation: int
    point: str
    gradient: bool
    portions: tuple[tuple[int, int, int], ...]  # (unit, start, stop)

    @staticmethod
    def of(message: Message) -> "WorkOrder":
        """The order in a message of the coordinator."""
        return WorkOrder(
            work=int(message["work"]),
            evaluation=int(message["evaluation"]),
            point=str(message["point"]),
            gradient=bool(message["gradient"]),
            portions=tuple((int(u), int(a), int(b)) for u, a, b in message["portions"]),
        )


class Piece(NamedTuple):
    """One mini-batch of a work, read ahead of need."""

    portion: int  # index in the work's portions
    minibatch: Minibatch
    seed: int


def pieces(problem: Problem, order: WorkOrder, minibatch_size: int, seed: int) -> Iterator[Piece]:
    """The mini-batches of a work in order.

    Every evaluation sees the same samples with the same augmentation, those of epoch 0: a line
    search compares losses of one function.
    """
    for index, (unit, start, stop) in enumerate(order.portions):
        at = start
        for minibatch in problem.minibatches(Lease(0, 0, unit, start, stop), minibatch_size):
            yield Piece(index, Minibatch(*minibatch), seed_of(seed, 0, unit, at))
            at += minibatch[1]


def compute(
    problem: Problem,
    parameters: Tensor,
    order: WorkOrder,
    found: Iterator[Piece],
    accrued: Tensor,
    spare: Tensor,
) -> list[float]:
    """Sum the work's losses, and with `order.gradient` its gradients, over samples.

    Args:
        parameters: the point, shape (P,).
        accrued: overwritten with the sum of gradients over all samples of the work, shape (P,).
        spare: scratch, shape (P,).

    Returns:
        For each portion the sum of its samples' losses.
    """
    losses = [0.0] * len(order.portions)
    first = True
    for index, (payload, num_samples), seed in found:
        seed_draws(seed)
        if not order.gradient:
            losses[index] += problem.loss(parameters, payload) * num_samples
            continue
        grad = accrued if first else spare
        losses[index] += problem.gradient_(parameters, payload, grad) * num_samples
        if first:
            accrued.mul_(num_samples)
        else:
            accrued.add_(spare, alpha=num_samples)
        first = False
    return losses
