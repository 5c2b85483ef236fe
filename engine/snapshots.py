"""When to ask the shards for a snapshot, and what a complete one contains. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.config import DownpourConfig
from engine.frames import Message
from engine.instructions import Commit, Instruction, Record, RunFailedError
from engine.ledger import Holder, Ledger, Progress, num_minibatches

#: A change of the interval by so much of it is worth a row in the event log.
_TELLING = 0.1


@dataclass
class _Snapshot:
    id: int
    mark: frozenset[int]
    final: bool
    validate: bool
    held: dict[int, Message] = field(default_factory=dict)
    replies: dict[int, Message] = field(default_factory=dict)


class Snapshots:
    """One snapshot at a time: due, held for, cut, written by every shard, committed, measured."""

    def __init__(
        self,
        ledger: Ledger,
        config: DownpourConfig,
        *,
        num_shards: int,
        shards_of: Sequence[Sequence[int]],
        epoch_size: int,
        next_id: int,
        now: float,
    ) -> None:
        """Nothing asked for yet.

        Args:
            shards_of: that each replica pushes to.
            now: counts as the time of the last checkpoint.
        """
        self._ledger = ledger
        self._wanted_interval_s = self._interval_s = config.checkpoint_every_s
        self._max_share = config.max_checkpoint_share
        self._minibatch_size = config.minibatch_size
        self._num_shards = num_shards
        self._shards_of = shards_of
        self._next_id = next_id
        self._saved = now
        self._asked: _Snapshot | None = None
        self._learned: list[Instruction] = []
        self._measuring = self._final_taken = self._last = False
        self._stride = config.validate_every_epochs * epoch_size
        self._next_validation = 0.0
        self._plan_validation(ledger.num_counted)

    def request(self, now: float) -> Message | None:
        """What to ask every shard now, if a snapshot is due and none is under way."""
        final = self._ledger.complete and not self._last
        validate = not self._last and (final or self._validation_due)
        due = self._last or validate or now - self._saved >= self._interval_s
        if not due or self._asked:
            return None
        if self._measuring and not self._last:
            if final or not self._demanded:
                return None
            validate = False
        self._asked = _Snapshot(self._next_id, self._ledger.mark(), final, validate)
        self._next_id += 1
        return {"op": "snapshot", "id": self._asked.id}

    def demand(self) -> None:
        """Have the next snapshot be due at once, whatever the clock says."""
        self._saved = -math.inf

    def stop(self) -> bool:
        """One more, at once and without validation; False when the final one is taken already."""
        self._last = True
        return not self._final_taken

    def abandon(self) -> Message | None:
        """A shard was lost: its part will not come. Due again as soon as all serve.

        Returns what to tell the other shards, which may hold pushes back for it.
        """
        asked, self._asked = self._asked, None
        return {"op": "release", "id": asked.id} if asked else None

    def hold(self, shard: int, message: Message) -> list[Message]:
        """One shard holds back pushes; when all do: up to which pushes each shall go on."""
        asked = self._asked
        if asked is None or message["id"] != asked.id:
            return []
        asked.held[shard] = message
        if len(asked.held) < self._num_shards:
            return []
        cut: dict[Holder, int] = {}
        for reply in asked.held.values():
            for replica, incarnation, sequence in reply["sequences"]:
                holder = (replica, incarnation)
                cut[holder] = max(cut.get(holder, 0), sequence)
        return [
            {"op": "cut", "id": asked.id, "sequences": self._pushed_to(k, cut)}
            for k in range(self._num_shards)
        ]

    def answer(self, shard: int, message: Message, now: float) -> Commit | None:
        """One shard has written its part; the commit when it was the last one."""
        asked = self._asked
        if asked is None or message["id"] != asked.id:
            return None
        asked.replies[shard] = message
        if len(asked.replies) < self._num_shards:
            return None
        self._asked, self._saved, self._measuring = None, now, asked.validate
        self._learn(asked.replies.values())
        self._final_taken = asked.final
        counted = self._ledger.counted_at(asked.mark, _furthest(asked.replies.values()))
        num_counted = sum(r.stop - r.start for r in counted)
        self._plan_validation(num_counted)
        shards = tuple(asked.replies[k] for k in range(self._num_shards))
        num_steps = num_minibatches(counted, self._minibatch_size)
        return Commit(
            asked.id, counted, num_counted, num_steps, shards, asked.final, asked.validate
        )

    def fail(self, shard: int, message: Message, now: float) -> Record | None:
        """A shard could not write. Training goes on, the next interval tries again.

        Raises:
            RunFailedError: it was the final snapshot, without which there is no result.
        """
        asked = self._asked
        if asked is None or message["id"] != asked.id:
            return None
        reason = message["message"]
        if asked.final:
            raise RunFailedError(f"shard {shard} cannot write the final checkpoint: {reason}")
        self._asked, self._saved = None, now
        self._plan_validation(self._ledger.num_counted)
        return Record("checkpoint_failed", {"shard": shard, "reason": reason})

    def learned(self) -> list[Instruction]:
        """A row if the interval has changed since the last call."""
        learned, self._learned = self._learned, []
        return learned

    def measured(self) -> None:
        """The committed checkpoint has been validated."""
        self._measuring = False

    def _pushed_to(self, shard: int, cut: Mapping[Holder, int]) -> list[tuple[int, int, int]]:
        """The part of a cut that one shard has to wait for."""
        own = (holder for holder in cut if shard in self._shards_of[holder[0]])
        return [(*holder, cut[holder]) for holder in own]

    def _learn(self, replies: Iterable[Message]) -> None:
        """Lengthen the interval until checkpoints cost no more than their share of the time.

        As CheckFreq (Mohan et al. 2021) does. The cost is taken as all of the time in which pushes
        were held and files written, though replicas compute meanwhile: it is a bound.
        """
        cost_s = max(reply["held_s"] + reply["wrote_s"] for reply in replies)
        before = self._interval_s
        self._interval_s = max(self._wanted_interval_s, cost_s / self._max_share)
        if abs(self._interval_s - before) > _TELLING * before:
            values = {"cost_s": round(cost_s, 3), "interval_s": round(self._interval_s, 1)}
            self._learned = [Record("checkpoint_interval", values)]

    @property
    def _demanded(self) -> bool:
        return self._saved == -math.inf

    @property
    def _validation_due(self) -> bool:
        return self._ledger.num_counted >= self._next_validation

    def _plan_validation(self, num_counted: int) -> None:
        self._next_validation = (num_counted // self._stride + 1) * self._stride


def _furthest(replies: Iterable[Message]) -> dict[Holder, Progress]:
    """For each holder the furthest progress that any shard's snapshot contains."""
    furthest: dict[Holder, Progress] = {}
    for reply in replies:
        for replica, incarnation, lease, upto in reply["progress"]:
            holder, progress = (replica, incarnation), Progress(lease, upto)
            furthest[holder] = max(furthest.get(holder, progress), progress)
    return furthest
