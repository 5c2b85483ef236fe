"""The replicas' part of evaluations: who is given what, and what becomes of their sums. Pure."""

from collections.abc import Sequence

from engine.batch.vector import Command
from engine.frames import Message
from engine.instructions import Instruction, Record, Send
from engine.roster import Roster
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.evaluation import Evaluation, Slot
from engine.sandblaster.paces import Paces
from engine.sandblaster.portion_ledger import PortionLedger
from engine.sandblaster.portions import Portion, clipped
from engine.sandblaster.tally import EvaluationTally


class Evaluator:
    """One evaluation after another, by the replicas of a roster."""

    def __init__(
        self, portions: Sequence[Portion], config: SandblasterConfig, roster: Roster
    ) -> None:
        """Start with nothing to evaluate; `portions` are those of the whole data."""
        self._portions = portions
        self._config = config
        self._roster = roster
        num_replicas = len(roster.replicas)
        self._owner_of = _first_owners(len(portions), num_replicas, config.deterministic)
        self._current: Evaluation | None = None
        self._paces = Paces()
        self._tally = EvaluationTally()
        self._num_evaluations = 0

    @property
    def busy(self) -> bool:
        """Whether an evaluation is under way."""
        return self._current is not None

    def begin(
        self, point: str, grad: str | None, samples: tuple[int, int] | None, now: float
    ) -> None:
        """The next evaluation: mean loss at `point`, and in `grad` its gradient.

        Raises:
            ValueError: there are no such samples.
        """
        portions = self._portions if samples is None else clipped(self._portions, *samples)
        if not portions:
            raise ValueError(f"a batch of samples {samples} is empty")
        self._num_evaluations += 1
        ledger = PortionLedger(
            [portion.number for portion in portions],
            self._owner_of,
            self._paces,
            max_bundle=1 if self._config.deterministic else self._config.max_bundle,
            max_copies=self._config.max_copies,
        )
        self._current = Evaluation(
            self._num_evaluations, point, grad, portions, ledger, self._config
        )
        self._tally = EvaluationTally(started=now)

    def give_work(self, now: float) -> list[Instruction]:
        """Give replicas portions, one work each at a time, so that all get some."""
        evaluation, workers = self._current, self._roster.workers
        instructions: list[Instruction] = []
        progress = evaluation is not None
        while evaluation and progress:
            progress = False
            for replica in workers:
                if work := evaluation.work_for(replica, workers, now):
                    instructions.append(Send(self._roster.peer(replica), work))
                    progress = True
        return instructions

    def take_sum(self, index: int, message: Message, now: float) -> list[Instruction]:
        """A replica's sum has arrived; what is not kept of it is released."""
        incarnation, evaluation = self._roster.replicas[index].incarnation, self._current
        if evaluation is None:  # a late copy of a portion of the evaluation before
            freed = _slot_of(index, incarnation, message)
        else:
            if message["evaluation"] == evaluation.id:
                self._tally.hear(index, message, evaluation.samples_in(int(message["work"])))
            freed = evaluation.take_sum(index, incarnation, message, now)
        return self._release([freed] if freed else [])

    def lose(self, replica: int) -> list[Instruction]:
        """A replica is gone; what it has not sent is open again."""
        self._paces.forget(replica)
        if self._current is None:
            return []
        returned = self._current.lose(replica)
        incarnation = self._roster.replicas[replica].incarnation
        values = {"replica": replica, "incarnation": incarnation, "samples_returned": returned}
        return [Record("replica_settled", values)]

    def next_commands(self) -> list[Command]:
        """What the shards are to do now to add sums."""
        return self._current.next_commands() if self._current else []

    def commands_done(self) -> list[Instruction]:
        """The shards have done that."""
        assert self._current is not None
        return self._release(self._current.commands_done())

    def finish(self, now: float) -> Record | None:
        """End the evaluation if nothing is missing; its event, which tells the loss."""
        evaluation = self._current
        if evaluation is None or not evaluation.finished:
            return None
        self._current = None
        self._owner_of = evaluation.ledger.owner_of
        return Record("evaluation", self._tally.row(evaluation, now))

    def _release(self, slots: Sequence[Slot]) -> list[Instruction]:
        """Tell replicas that still live the life of these slots that they may be overwritten."""
        roster = self._roster
        return [
            Send(roster.peer(s.replica), {"op": "released", "slot": s.slot})
            for s in slots
            if s.replica in roster.workers
            and roster.replicas[s.replica].incarnation == s.incarnation
        ]


def _first_owners(num_portions: int, num_replicas: int, in_order: bool) -> tuple[int, ...]:
    """Who gets which portion the first time: a stretch each, or by turns."""
    if in_order:
        return tuple(portion % num_replicas for portion in range(num_portions))
    return tuple(portion * num_replicas // num_portions for portion in range(num_portions))


def _slot_of(replica: int, incarnation: int, message: Message) -> Slot | None:
    slot = message["slot"]
    return None if slot is None else Slot(replica, incarnation, int(slot))
