"""What is to be expected of the replicas that work on one batch. Pure."""

from collections.abc import Sequence

from engine.sandblaster.in_hand import InHand

#: Part of a portion that a forecast allows for messages and for what it does not know.
MARGIN = 0.25


def share(replica: int, workers: Sequence[int], in_hand: InHand, now: float) -> float:
    """A replica's part of the speed of all."""
    speeds = {worker: 1.0 / in_hand.pace(worker, now) for worker in workers}
    return speeds[replica] / sum(speeds.values())


def next_done_at(replica: int, in_hand: InHand, now: float) -> float:
    """When a replica would have done one portion more than it has in hand."""
    return in_hand.done_at(replica, now) + in_hand.pace(replica, now)


def others_are_quicker(
    replica: int, workers: Sequence[int], in_hand: InHand, num_open: int, now: float
) -> bool:
    """Whether the others will have done all open portions before this replica would one more.

    Never so for the one that would be done first, so that somebody takes every portion.
    """
    by = next_done_at(replica, in_hand, now)
    others = (worker for worker in workers if worker != replica)
    num_done = 0
    for worker in others:
        left = by - in_hand.done_at(worker, now)
        num_done += max(0, int(left / in_hand.pace(worker, now) - MARGIN))
    return num_done >= num_open
