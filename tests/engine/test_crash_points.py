"""A machine that dies at any write, sync or rename loses no acknowledged push (faults P5, P7)."""

import itertools
import random
from pathlib import Path

import pytest
import torch

from engine.log_recovery import restore
from engine.shard import ParameterShard
from engine.state import ShardState
from tests.engine.crash_points import DoomedDisk
from tests.engine.killed import Killed, dies_at
from tests.engine.logged import (
    SIZE,
    LoggedShard,
    Whole,
    lived_through,
    new_memory,
    newest,
    recovered,
)
from tests.engine.shards import push

NUM_PUSHES = 8


class Client:
    """Sends push after push, with snapshots, a loss of memory and a loss of an owner among them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epoch = self.acknowledged = 0
        self.memory = new_memory()

    def restart(self, memory: ShardState) -> LoggedShard:
        """A successor that has the disk and this memory."""
        self.epoch, self.memory = self.epoch + 1, memory
        return LoggedShard(self.folder, self.epoch, memory=memory)

    def run(self) -> None:
        shard = self.restart(self.memory)
        while self.acknowledged < NUM_PUSHES:
            self.send(shard)
            if self.acknowledged == 3:
                shard.push(push(4), acknowledge=False)
                shard.log.close()  # which is behind its memory now
                shard = self.restart(self.memory)
            if self.acknowledged in (2, 6):
                shard.snapshot(self.acknowledged)
            if self.acknowledged == 4:
                shard.log.close()
                shard = self.restart(new_memory())  # which may die in the middle of that, too
        shard.log.close()

    def send(self, shard: LoggedShard) -> None:
        sequence = self.acknowledged + 1
        shard.push(push(sequence))
        self.acknowledged = sequence


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Whole]:
    """What a shard is after each number of pushes."""
    shard = LoggedShard(tmp_path_factory.mktemp("oracle"))
    found = [Whole.of(shard.shard)]
    for sequence in range(1, NUM_PUSHES + 1):
        shard.push(push(sequence))
        found.append(Whole.of(shard.shard))
    shard.log.close()
    return found


@pytest.mark.parametrize("lost", ["process", "process and memory", "power"])
def test_at_every_point_all_that_was_acknowledged_comes_back(tmp_path, monkeypatch, states, lost):
    found = set()
    for point in itertools.count():
        folder = tmp_path / str(point)
        LoggedShard(folder).log.close()  # with its first checkpoint
        for left in (folder / "log").iterdir():
            left.unlink()
        client = Client(folder)
        with monkeypatch.context() as patch:
            disk = DoomedDisk(patch, point)
            try:
                client.run()
                died = False
            except Killed:
                died = True
        if died and lost == "power":
            disk.lose_power(random.Random(point))
        if died and lost == "process":
            kept = client.restart(client.memory)
            kept.log.close()
            assert Whole.of(kept.shard) == recovered(folder), point
        whole = recovered(folder)
        version = whole.contents.version
        assert whole == states[version], point
        assert client.acknowledged <= version <= client.acknowledged + 1, point
        found.add(version - client.acknowledged)
        if not died:
            break
        heir = client.restart(new_memory())  # and the run goes on to its end
        client.acknowledged = version
        while client.acknowledged < NUM_PUSHES:
            client.send(heir)
        assert Whole.of(heir.shard) == states[NUM_PUSHES], point
        heir.log.close()
    assert point > 60
    assert found == {0, 1}  # pushes that were written and not acknowledged may come back, too


def test_a_shard_killed_at_any_instruction_of_its_own_recovery_is_recovered_by_the_next(tmp_path):
    shard = LoggedShard(tmp_path)
    lived_through(shard, 1, 2)
    shard.snapshot(1)
    lived_through(shard, 3, 4)
    shard.log.close()
    before, source = Whole.of(shard.shard), newest(tmp_path, shard.rule.slots)

    def recover(buffer: bytearray, epoch: int) -> ParameterShard:
        state = ShardState(buffer, SIZE, len(shard.rule.slots), torch.float32)
        owner = ParameterShard(state, shard.rule, epoch)
        if not state["ready"]:
            restore(state, owner, shard.rule, 0, source, tmp_path / "log")
        owner.finish_interrupted(lambda at: pytest.fail("there is no push to finish"))
        return owner

    for point in itertools.count():
        buffer = bytearray(ShardState.num_bytes(SIZE, len(shard.rule.slots), torch.float32))
        if not dies_at(point, lambda buffer=buffer: recover(buffer, epoch=1)):
            break
        assert Whole.of(recover(buffer, epoch=2)) == before, point
    assert point > 50
