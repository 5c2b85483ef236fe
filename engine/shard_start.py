"""How a shard's process comes to the shard that it serves: from memory, or from the disk."""

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from engine import checkpoint, memory
from engine.config import RuleConfig
from engine.coordinator_link import CoordinatorLink
from engine.endpoint import Place
from engine.frames import Message
from engine.log_file import read_files
from engine.log_recovery import restore
from engine.push_log import PushLog
from engine.record import Recorder
from engine.rules import UpdateRule, make_rule
from engine.run_spec import RunSpec, log_folder
from engine.sandblaster.vectors import ShardVectors
from engine.segment import gradient_at
from engine.shard import ParameterShard
from engine.state import Location, ShardState


def open_log(run: RunSpec, index: int, link: CoordinatorLink, epoch: int) -> PushLog | None:
    """The log of pushes, owned by us from now on; None with durability=process."""
    if run.log is None:
        return None

    def ask_for_checkpoint() -> None:
        with suppress(OSError):
            link.send("log_long")

    return PushLog(
        log_folder(run.log, index),
        epoch,
        run.log_bytes,
        on_failure=link.close,
        on_long=ask_for_checkpoint,
    )


def take_over(
    run: RunSpec,
    index: int,
    rule_config: RuleConfig,
    bound: int | None,
    max_norm: float | None,
    assign: Message,
    pushes: PushLog | None,
) -> tuple[ParameterShard, ShardVectors, Place, str]:
    """The shard as its last owner left it in memory, or as the checkpoint has it."""
    rule = make_rule(rule_config)
    part = run.slices[index]
    path = run.memory / f"shard-{index:02d}.state"
    place = Place(part.start, part.stop - part.start, run.size, run.dtype)
    num_bytes = ShardState.num_bytes(place.count, len(rule.slots), run.dtype)
    opener = memory.open_existing if path.exists() else memory.create
    state = ShardState(opener(path, num_bytes), place.count, len(rule.slots), run.dtype)
    epoch, source = int(assign["epoch"]), Path(assign["checkpoint"])
    record = Recorder(run.record / f"shard-{index:02d}.jsonl").push if run.record else None
    restored_from = "memory"
    if not state["ready"]:
        restored_from = _restore(run, index, state, rule, epoch, source)
    shard = ParameterShard(state, rule, epoch, bound, record, log=pushes, max_norm=max_norm)

    def grad_at(location: Location) -> Tensor:
        return gradient_at(location, place.count, run.dtype)

    if shard.finish_interrupted(grad_at):
        restored_from = "memory, after finishing an interrupted push"
    if pushes and run.log:
        files, unlogged = read_files(log_folder(run.log, index)), shard.unlogged(grad_at)
        pushes.begin(shard.version, shard.table(), files, unlogged, shard.note_logged)
    for inbox in run.memory.glob(f"inbox-{index:02d}-*"):  # of dead owners; needed until here
        memory.remove(inbox)
    vectors = ShardVectors(run.memory, index, place, state.values)
    return shard, vectors, place, restored_from


def _restore(
    run: RunSpec, index: int, state: ShardState, rule: UpdateRule, epoch: int, checkpoint_: Path
) -> str:
    """Fill a new state from the newest checkpoint and the log, if there is one."""
    source = checkpoint.read(checkpoint_)
    if run.log is None:
        written = source.read_shard(index)
        slots = [written[name] for name in rule.slots]
        state.fill(written["values"], slots, source.shards[index].version)
        return "checkpoint"
    folder = log_folder(run.log, index)
    shard = ParameterShard(state, rule, epoch)
    count = restore(state, shard, rule, index, source, folder)
    state["owner_epoch"] = epoch - 1  # whoever serves it takes over from us
    return f"checkpoint and {count} pushes of the log" if count else "checkpoint"
