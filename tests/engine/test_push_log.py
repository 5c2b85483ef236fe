"""A shard's log on disk: what was acknowledged comes back, to the bit, without its memory."""

import os
import random
import threading
from pathlib import Path

import pytest

from engine.block_file import BLOCK
from engine.log_file import HEAD_BYTES, LogDamagedError, read_files
from engine.push import FencedShardError, StaleIncarnationError
from engine.push_log import LogFailedError, PushLog
from engine.state import NUM_INTENTS
from tests.engine.logged import LoggedShard, Whole, lived_through, recovered
from tests.engine.problems import RULES, rule_name
from tests.engine.shards import push

#: A record of LoggedShard's 40 values; zeros fill its block.
RECORD_BYTES = 248


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_the_state_comes_back_bit_for_bit_from_a_checkpoint_and_the_log(tmp_path, rule):
    shard = LoggedShard(tmp_path, rule=rule)
    lived_through(shard)
    shard.push(push(1, replica=1, incarnation=1))
    shard.fence(1, 1)
    shard.snapshot(1)
    shard.push(push(1, replica=1, incarnation=2))
    shard.push(push(6)._replace(scale=0.25))  # out of order
    shard.push(push(5))
    shard.fence(0, 1)
    before = Whole.of(shard.shard)
    shard.log.close()

    again = LoggedShard(tmp_path, epoch=2, rule=rule)
    assert again.repeated == 3  # the others are in the checkpoint
    assert Whole.of(again.shard) == before
    with pytest.raises(StaleIncarnationError):
        again.push(push(7))
    assert again.shard.push(push(1, replica=1, incarnation=2), None).duplicate
    again.push(push(2, replica=1, incarnation=2))
    before = Whole.of(again.shard)
    again.log.close()
    third = LoggedShard(tmp_path, epoch=3, rule=rule)
    assert Whole.of(third.shard) == before
    third.log.close()


def test_only_what_a_durable_checkpoint_covers_is_removed(tmp_path):
    shard = LoggedShard(tmp_path)
    lived_through(shard, 1, 2)
    values = shard.shard.copy()
    shard.log.rotate(2, shard.shard.table())  # its checkpoint is never written
    lived_through(shard, 3, 4)
    shard.log.forget(1)  # another checkpoint, of before
    assert len(shard.files) == 2
    assert Whole.of(shard.shard) == recovered(tmp_path)
    assert values[2] == 2
    shard.snapshot(1)
    assert [path.name for path in shard.files] == ["000001-000000000004.log"]
    lived_through(shard, 5, 5)
    assert Whole.of(shard.shard) == recovered(tmp_path)
    shard.log.close()


def four_pushes(folder: Path) -> tuple[Path, list[Whole], list[range]]:
    """A log, its states from none to all four pushes, the bytes of it that head and records use."""
    shard = LoggedShard(folder)
    states = [Whole.of(shard.shard)]
    for sequence in range(1, 5):
        shard.push(push(sequence))
        states.append(Whole.of(shard.shard))
    shard.log.close()
    (file,) = shard.files
    begins = [HEAD_BYTES + BLOCK * index for index in range(4)]
    used = [range(begin, begin + RECORD_BYTES) for begin in begins]
    return file, states, [range(HEAD_BYTES), *used]


def test_a_log_cut_at_any_byte_of_its_last_records_ends_there(tmp_path):
    file, states, used = four_pushes(tmp_path)
    content = file.read_bytes()
    assert len(content) == HEAD_BYTES + 4 * BLOCK
    for length in [*range(used[3].start, used[3].stop + 1), *used[4], len(content)]:
        file.write_bytes(content[:length])
        whole = sum(part.stop <= length for part in used) - 1
        assert recovered(tmp_path) == states[whole], length


def test_a_flipped_bit_never_goes_unnoticed(tmp_path):
    file, states, used = four_pushes(tmp_path)
    content, rng = file.read_bytes(), random.Random(0)
    for part in [0] * 40 + [1, 2, 3, 4] * 90:
        byte = rng.choice(used[part])
        damaged = bytearray(content)
        damaged[byte] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        if part == 0:
            with pytest.raises(LogDamagedError, match="head was altered"):
                recovered(tmp_path)
        else:
            assert recovered(tmp_path) == states[part - 1], byte


def test_a_hole_in_the_middle_of_a_log_is_refused(tmp_path):
    shard = LoggedShard(tmp_path)
    lived_through(shard, 1, 3)
    shard.log.rotate(3, shard.shard.table())
    lived_through(shard, 4, 5)
    shard.log.close()
    first = shard.files[0]
    os.truncate(first, first.stat().st_size - BLOCK)
    with pytest.raises(LogDamagedError, match=r"after version 2, .* goes on from version 3"):
        LoggedShard(tmp_path, epoch=2)


def test_what_was_written_but_not_applied_is_no_push(tmp_path):
    shard = LoggedShard(tmp_path)
    lived_through(shard, 1, 2)
    before = Whole.of(shard.shard)
    shard.log.push(3, push(3), shard.shard.copy()[0])
    shard.log.wait(shard.log.written)  # and its owner dies, whose memory stays
    shard.log.close()
    heir = PushLog(tmp_path / "log", 2, 10**9)  # goes on from memory
    heir.begin(2, shard.shard.table(), read_files(tmp_path / "log"))
    heir.close()
    assert recovered(tmp_path) == before


def test_what_an_owner_left_applied_and_not_written_its_successor_writes(tmp_path):
    shard = LoggedShard(tmp_path)
    lived_through(shard, 1, 2)
    assert shard.shard.unlogged(pytest.fail) == []  # these gradients may be gone by now
    for sequence in (3, 4):
        shard.push(push(sequence)._replace(scale=0.5), acknowledge=False)
    before = Whole.of(shard.shard)
    shard.log.close()
    assert recovered(tmp_path).contents.version == 2
    heir = LoggedShard(tmp_path, epoch=2, memory=shard.memory)
    assert Whole.of(heir.shard) == before == recovered(tmp_path)
    heir.push(push(5))
    assert Whole.of(heir.shard) == recovered(tmp_path)
    heir.log.close()


def test_a_log_that_nobody_waits_for_lags_behind_memory_by_fewer_pushes_than_that_keeps(tmp_path):
    shard = LoggedShard(tmp_path)
    for sequence in range(1, 3 * NUM_INTENTS):
        shard.push(push(sequence), acknowledge=False)
    before = Whole.of(shard.shard)
    shard.log.close()
    written = recovered(tmp_path).contents.version
    assert before.contents.version - NUM_INTENTS <= written < before.contents.version
    heir = LoggedShard(tmp_path, epoch=2, memory=shard.memory)
    assert Whole.of(heir.shard) == before == recovered(tmp_path)
    heir.log.close()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("none left")])
def test_a_sync_that_fails_once_acknowledges_nothing_ever_again(tmp_path, monkeypatch, error):
    stopped, syncs = [], []
    shard = LoggedShard(tmp_path, on_failure=lambda: stopped.append(True))
    lived_through(shard, 1, 2)

    def fail(descriptor: int) -> None:
        syncs.append(descriptor)
        if len(syncs) == 1:
            raise error

    monkeypatch.setattr("engine.block_file.os.fdatasync", fail)
    with pytest.raises(LogFailedError, match=rf"000001-000000000000.log.*{error.args[-1]}"):
        shard.push(push(3))
    for act in (
        lambda: shard.push(push(4)),
        lambda: shard.log.wait(shard.log.written),
        lambda: shard.log.rotate(3, shard.shard.table()),
    ):
        with pytest.raises(LogFailedError):
            act()
    assert (len(syncs), stopped) == (1, [True])
    shard.log.close()


@pytest.fixture
def little_room(monkeypatch) -> list[int]:
    """Room is taken block by block; the list holds how many blocks the disk still has."""
    left, allocate = [10**9], os.posix_fallocate

    def take(descriptor: int, offset: int, count: int) -> None:
        left[0] -= count // BLOCK
        if left[0] < 0:
            left[0] += count // BLOCK
            raise OSError(28, "No space left on device")
        allocate(descriptor, offset, count)

    monkeypatch.setattr("engine.block_file._STEP", 2 * BLOCK)
    monkeypatch.setattr("engine.block_file.os.posix_fallocate", take)
    return left


def test_a_full_disk_leaves_the_shard_unchanged_and_acknowledges_nothing(tmp_path, little_room):
    shard = LoggedShard(tmp_path)
    lived_through(shard, 1, 2)
    little_room[0] = 1
    lived_through(shard, 3, 3)  # in the last block there is
    before = Whole.of(shard.shard)
    with pytest.raises(LogFailedError, match="No space left"):
        shard.push(push(4))
    assert Whole.of(shard.shard) == before == recovered(tmp_path)
    shard.log.close()


def test_pushes_go_on_while_the_disk_is_busy_and_share_the_next_sync(tmp_path, monkeypatch):
    shard = LoggedShard(tmp_path)
    began, go_on, syncs = threading.Event(), threading.Event(), []

    def slow(descriptor: int) -> None:
        syncs.append(descriptor)
        began.set()
        assert go_on.wait(10)

    monkeypatch.setattr("engine.block_file.os.fdatasync", slow)
    lock, acknowledged = threading.Lock(), []

    def send(replica: int) -> None:
        with lock:
            shard.push(push(1, replica), acknowledge=False)
            end = shard.log.written
        shard.log.wait(end)
        acknowledged.append(replica)

    threads = [threading.Thread(target=send, args=(replica,)) for replica in range(4)]
    threads[0].start()
    assert began.wait(10)
    for thread in threads[1:]:
        thread.start()
    while shard.shard.version < 4:  # applied, though the first is not durable yet
        pass
    assert acknowledged == []
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert sorted(acknowledged) == [0, 1, 2, 3]
    assert len(syncs) == 2
    shard.log.close()


def test_an_owner_that_was_replaced_acknowledges_nothing_on_whatever_host_it_is(tmp_path):
    old = LoggedShard(tmp_path)
    lived_through(old, 1, 2)
    new = LoggedShard(tmp_path, epoch=2)
    with pytest.raises(FencedShardError, match="epoch 1 was replaced by epoch 2"):
        old.push(push(3))
    with pytest.raises(FencedShardError, match="epoch 1 wants the log"):
        LoggedShard(tmp_path, epoch=1)
    new.push(push(4))
    assert Whole.of(new.shard) == recovered(tmp_path)
    old.log.close()
    new.log.close()


def test_half_of_the_limit_asks_for_a_checkpoint_and_all_of_it_leaves_no_room(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("engine.push_log._ASK_S", 0.0)
    asked = []
    shard = LoggedShard(
        tmp_path, limit=5 * BLOCK, on_long=lambda: asked.append(shard.shard.version)
    )
    rooms = []
    for sequence in range(1, 7):
        rooms.append(shard.log.has_room())
        lived_through(shard, sequence, sequence)
    assert rooms == [True] * 5 + [False]  # a record of 40 values takes a block
    assert asked == [3, 4, 5]
    shard.snapshot(1)
    assert shard.log.has_room()
    assert len(asked) == 3
    shard.log.close()
