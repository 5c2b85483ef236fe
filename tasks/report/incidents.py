"""Events out of the ordinary, in plain words."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Event = Mapping[str, Any]


class Incident(NamedTuple):
    """Something out of the ordinary: what happened, and what was done about it."""

    time_s: float
    what: str
    done: str


class IncidentTeller:
    """Tells of each incident once; the refused pushes of one replica are one incident."""

    def __init__(self) -> None:
        self._refusing: set[int] = set()
        self._lost: set[int] = set()

    def tell(self, row: Event) -> Incident | None:
        """The event in plain words, or None for what happens in every run or was told before."""
        if row["event"] == "push_refused":
            if row["replica"] in self._refusing:
                return None
            self._refusing.add(row["replica"])
        if row["event"] == "replica_lost":
            self._lost.add(row["replica"])
        if row["event"] == "replica_joined":
            if row["replica"] not in self._lost:  # it begins, or begins the next phase
                return None
            self._lost.remove(row["replica"])
        texts = _texts(row)
        return Incident(float(row["time_s"]), *texts) if texts else None


def _texts(row: Event) -> tuple[str, str] | None:
    """(what happened, what was done); first epochs belong to every start."""
    match row["event"]:
        case "start" if row["resumed_at_samples"] > 0:
            return (
                "The run had been stopped before its end.",
                f"It went on from its checkpoint at {row['resumed_at_samples']:,} samples.",
            )
        case "replica_lost":
            return (
                f"Replica {row['replica']} (life {row['incarnation']}) was lost: {row['reason']}.",
                "Its pushes were fenced off and another process was started in its place.",
            )
        case "replica_settled":
            return (
                f"{row['samples_returned']:,} samples of replica {row['replica']} (life "
                f"{row['incarnation']}) had not reached the shards.",
                "They were given out again; what had reached a shard was not repeated.",
            )
        case "replica_joined":
            return (
                f"Replica {row['replica']} was back, in its life {row['incarnation']}.",
                "It fetched the newest parameters and took the next samples.",
            )
        case "replica_quarantined":
            return (
                f"Replica {row['replica']} was left out: {row['reason']}.",
                "Its samples were given to the others.",
            )
        case "shard_lost":
            return (
                f"Parameter shard {row['shard']} was lost: {row['reason']}.",
                "Replicas kept their gradients and waited for its successor.",
            )
        case "shard_serving" if row["epoch"] > 1:
            return (
                f"Parameter shard {row['shard']} was served again, in epoch {row['epoch']}, at "
                f"version {row['version']}.",
                f"Its state came from {row['restored_from']}; the pushes went on.",
            )
        case "process_ended" if row["code"]:
            return (
                f"Process {row['pid']} of {row['role']} {row['index']} {row['how']}.",
                "Dask started another one in its place.",
            )
        case "rank_lost":
            return (
                f"Process {row['replica']} of the synchronous training was lost: {row['reason']}.",
                "All processes stopped, and began again at the newest checkpoint.",
            )
        case "push_refused":
            return (
                f"A push of replica {row['replica']} was refused: {row['message']}.",
                "The replica went on with its next samples.",
            )
        case "commit_failed":
            return (
                f"A checkpoint could not be completed: {row['reason']}.",
                "Training went on; the next one is due at the next interval.",
            )
        case "checkpoint_failed":
            return (
                f"Shard {row['shard']} could not write its part of a checkpoint: {row['reason']}.",
                "The training went on; the earlier checkpoint is intact.",
            )
        case "checkpoint_interval":
            return (
                f"A checkpoint took {row['cost_s']:g} s.",
                f"The next ones are {row['interval_s']:g} s apart, so that they cost no more than "
                "their share of the training.",
            )
    return None
