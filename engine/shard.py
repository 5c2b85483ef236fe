"""A parameter shard: one slice of the parameters and its update rule. No socket, no thread."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from engine.applied_pushes import AppliedPushes
from engine.copying import copy_
from engine.ledger import Holder, Progress
from engine.push import Applied, FencedShardError, Push, StaleIncarnationError
from engine.push_limits import PushLimits
from engine.rules import UpdateRule
from engine.state import NOWHERE, Location, ShardState


class ChangeLog(Protocol):
    """Learns of each change before it is begun, and writes it down some time later.

    It tells `note_logged` what it has written, and lags behind by fewer than NUM_INTENTS pushes.
    """

    def push(self, version: int, push: Push, grad: Tensor) -> None:
        """The push that makes `version` comes next; what this raises prevents it."""
        ...

    def fence(self, version: int, replica: int, incarnation: int) -> None:
        """This life is refused from `version` on."""
        ...


class ParameterShard:
    """Owns one slice. `version` counts applied pushes; staleness = version now - version fetched.

    Exactly one epoch owns the memory at a time: the newest. Every change checks that first.
    """

    def __init__(
        self,
        state: ShardState,
        rule: UpdateRule,
        epoch: int,
        max_staleness: int | None = None,
        record: Callable[[int, Push], None] | None = None,
        *,
        log: ChangeLog | None = None,
        max_norm: float | None = None,
    ) -> None:
        """Take over `state`. If a push was interrupted, call `finish_interrupted` before use.

        Args:
            max_norm: Euclidean norm up to which a gradient's slice is taken; None: any.
            record: called with each push and the version it makes, before it is begun.
            log: to be told of every change in advance.
        """
        self._state = state
        self._rule = rule
        self._epoch = epoch
        self._limits = PushLimits(max_staleness, max_norm)
        self._record = record
        self._log = log
        self._applied = AppliedPushes(state.rows)
        rule.compile(state.vectors.dtype)  # now, that no push has to wait for it
        if state["owner_epoch"] >= epoch:
            raise FencedShardError(
                f"epoch {epoch} wants a shard that epoch {state['owner_epoch']} already owns"
            )
        state["owner_epoch"] = epoch

    @property
    def version(self) -> int:
        return int(self._state["version"])

    @property
    def num_values(self) -> int:
        return self._state.values.numel()

    def fetch(self, out: Tensor) -> int:
        """Copy the slice into `out`, shape (num_values,), and return its version."""
        self._check_owner()
        copy_(out, self._state.values)
        self._check_owner()  # or a successor may have changed it meanwhile
        return self.version

    def look(self) -> tuple[Tensor, int]:
        """The slice itself, which the next push changes, and its version.

        Raises:
            FencedShardError: a successor may be changing it already. Who has read the slice asks
                again: it was whole if this is not raised then.
        """
        self._check_owner()
        return self._state.values, self.version

    def push(
        self,
        push: Push,
        grad: Tensor,
        location: Location = NOWHERE,
        squares: float | None = None,
    ) -> Applied:
        """Apply one accrued gradient, shape (num_values,), exactly once.

        Args:
            location: where a successor would find `grad` again, should this process die now.
            squares: the sum of `grad`'s squares, where it is known already.

        Raises:
            PushRefusedError: a subclass says why; nothing has changed.
            FencedShardError: somebody else owns this shard by now.
        """
        self._check_owner()
        row = self._applied.row(push.replica, push.incarnation)
        if self._state.rows[row]["fenced"]:
            raise StaleIncarnationError(
                f"replica {push.replica} incarnation {push.incarnation} was replaced; "
                "its samples are with another replica"
            )
        if self._applied.seen(row, push.sequence):
            return Applied(self.version, 0, duplicate=True)
        # Below 0 where a loss of power took updates that were fetched, but never acknowledged.
        staleness = max(0, self.version - push.fetched_version)
        self._limits.check(push, grad, staleness, self._state.values, squares)
        if self._record:
            self._record(self.version + 1, push)
        if self._log:
            self._log.push(self.version + 1, push, grad)
        self._begin(row, push, location)
        self._apply_from(0, grad, push.scale)
        self._commit()
        return Applied(self.version, staleness, duplicate=False)

    def interrupted(self) -> Location | None:
        """Where the gradient of a push lies that a dead owner had begun, or None."""
        if not (version := int(self._state["intent_active"])):
            return None
        return _location(self._state.intent(version))

    def finish_interrupted(self, grad_at: Callable[[Location], Tensor]) -> bool:
        """Finish what the previous owner had begun; True if there was something."""
        location = self.interrupted()
        if location is None:
            return False
        next_block = int(self._state["intent_next_block"])
        if next_block < self._state.num_blocks:
            if self._state["intent_undo_block"] == next_block:
                self._state.restore_undo(next_block)
            scale = float(self._state.intent(self._state["intent_active"])["scale"])
            self._apply_from(next_block, grad_at(location), scale)
        self._commit()
        return True

    def unlogged(self, grad_at: Callable[[Location], Tensor]) -> list[tuple[int, Push, Tensor]]:
        """The applied pushes that the last owner may not have logged, and what versions they made.

        In order, with their gradients, which replicas keep until they know a push to be durable.
        """
        first = int(self._state["logged"]) + 1
        intents = [(v, self._state.intent(v)) for v in range(first, self.version + 1)]
        return [(v, _push(v, intent), grad_at(_location(intent))) for v, intent in intents]

    def note_logged(self, version: int) -> None:
        """All up to `version` is in the log; to be called before any of it is acknowledged."""
        self._state["logged"] = version

    def fence(self, replica: int, incarnation: int) -> Progress | None:
        """Refuse this life of a replica from now on; return how far its pushes reached."""
        self._check_owner()
        try:
            row = self._applied.row(replica, incarnation)
        except StaleIncarnationError:  # it never pushed here, and a newer life did
            return None
        if self._log:
            self._log.fence(self.version, replica, incarnation)
        self._state.rows[row]["fenced"] = 1
        return self.progress().get((replica, incarnation))

    def repeat(self, push: Push, grad: Tensor | None) -> None:
        """Apply what a log says was applied; None: the vectors contain it, the table does not."""
        self._begin(self._applied.row(push.replica, push.incarnation), push, NOWHERE)
        if grad is not None:
            self._apply_from(0, grad, push.scale)
        self._commit()

    def set_table(self, version: int, rows: Any) -> None:
        """Let `rows` be the table of applied pushes, as it was at `version`."""
        self._applied.replace(rows)
        self._state["version"] = version

    def table(self) -> Any:
        """A copy of the table of applied pushes, NUM_ROWS of `engine.state.ROW`."""
        return self._state.rows.copy()

    def progress(self) -> dict[Holder, Progress]:
        """How far the applied pushes of each life of a replica reach."""
        return self._applied.progress()

    def sequences(self) -> dict[Holder, int]:
        """The highest sequence number applied of each life that may still push."""
        return self._applied.sequences()

    def ended(self) -> set[Holder]:
        """The lives that may not push any more, as far as they are remembered."""
        return self._applied.ended()

    def copy(self) -> tuple[Tensor, dict[str, Tensor], int]:
        """Copies of values and slots, and the version they belong to."""
        self._check_owner()
        slots = zip(self._rule.slots, self._state.slots, strict=True)
        return self._state.values.clone(), {k: v.clone() for k, v in slots}, self.version

    def retire(self) -> None:
        """Give the memory up: from now on every method that needs it raises FencedShardError."""
        self._epoch = 0

    def _check_owner(self) -> None:
        if self._state["owner_epoch"] != self._epoch:
            raise FencedShardError(
                f"epoch {self._epoch} was replaced by epoch {self._state['owner_epoch']}"
            )

    def _begin(self, row: int, push: Push, location: Location) -> None:
        state = self._state
        high, window = self._applied.remembered(row, push.sequence)
        reached = Progress(int(state.rows["lease"][row]), int(state.rows["upto"][row]))
        lease, upto = max(reached, push.progress)
        version, path = self.version + 1, location.path.encode()
        changes = (row, lease, upto, window, high, version)
        fields = (*push[:3], *changes, push.scale, path, location.offset)
        state.set_intent(version, fields)
        state["intent_next_block"] = 0
        state["intent_undo_block"] = -1
        state["intent_active"] = version

    def _apply_from(self, first_block: int, grad: Tensor, scale: float) -> None:
        state = self._state
        update = self._rule.update(state.vectors.dtype, scale, int(state["intent_active"]))
        state.save_undo(first_block)
        update(
            state.vectors,
            grad.numpy(),
            state.undo,
            state.marks,
            state.block_size,
            state.num_values,
            first_block,
            state.num_blocks,
        )

    def _commit(self) -> None:
        """Record the intended push as applied. Every line may run twice with the same effect."""
        state = self._state
        intent = state.intent(state["intent_active"])
        for field in ("lease", "upto", "window", "high"):
            state.rows[field][intent["row"]] = intent[field]
        state["version"] = intent["version"]
        state["intent_active"] = 0


def _push(version: int, intent: Any) -> Push:
    """As a log has it: `fetched_version` matters no more."""
    progress = Progress(int(intent["lease"]), int(intent["upto"]))
    id = (int(intent["replica"]), int(intent["incarnation"]), int(intent["sequence"]))
    return Push(*id, version - 1, progress, float(intent["scale"]))


def _location(intent: Any) -> Location:
    return Location(intent["path"].decode(), int(intent["offset"]))
