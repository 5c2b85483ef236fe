"""Records of the log in whole blocks: any gradient, wherever in memory it lies, comes back."""

import errno
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.block_file import BLOCK, BlockFile
from engine.ledger import Progress
from engine.log_file import Record, encode_head, read_files, scratch_blocks
from engine.push import Push
from engine.state import NUM_ROWS, ROW
from tests.engine.shards import vector

PUSH = Push(3, 1, 9, 1, Progress(4, 5), 0.5)
HEAD = encode_head(1, 1, np.zeros(NUM_ROWS, ROW))


def lying(size: int, first: int) -> torch.Tensor:
    """Random numbers, shape (size,), whose address is `first` elements behind a page's."""
    memory = torch.empty(size + first + BLOCK)
    behind = -memory.data_ptr() % BLOCK // 4
    grad = memory[behind + first : behind + first + size]
    return grad.copy_(vector(size, seed=size))


def written(folder, grads: list[torch.Tensor]) -> list[Record]:
    """What is read of a log of these gradients."""
    file = BlockFile(folder / "000001-000000000001.log")
    file.append(HEAD)
    scratch = scratch_blocks()
    for version, grad in enumerate(grads, start=2):
        record = Record(version, PUSH, grad)
        file.write(file.reserve(record.num_bytes()), record.encode(scratch))
    file.sync()
    file.close()
    (found,) = read_files(folder)
    assert found.path.stat().st_size == file.end
    return list(found.records(torch.float32))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 1023)), min_size=1, max_size=4))
def test_gradients_of_any_size_at_any_place_come_back_in_order(tmp_path_factory, places):
    grads = [lying(size, first) for size, first in places]
    found = written(tmp_path_factory.mktemp("log"), grads)
    assert [record.version for record in found] == list(range(2, len(grads) + 2))
    for record, grad in zip(found, grads, strict=True):
        assert record.change == PUSH._replace(fetched_version=record.version - 1)
        assert torch.equal(record.grad, grad)


@pytest.mark.parametrize("first", [0, 16, 1023])
def test_only_the_ends_of_a_gradient_are_copied(first):
    grad = lying(100_000, first)
    parts = Record(2, PUSH, grad).encode(scratch_blocks())
    for part in parts:
        assert len(part) % BLOCK == np.frombuffer(part, np.uint8).ctypes.data % BLOCK == 0
    begin = np.frombuffer(parts[1], np.uint8).ctypes.data
    assert grad.data_ptr() <= begin
    assert begin + len(parts[1]) <= grad.data_ptr() + grad.nbytes
    assert sum(map(len, parts)) - len(parts[1]) <= 3 * BLOCK


def test_a_file_system_that_has_only_pages_will_do(tmp_path, monkeypatch):
    refused, real = [], os.open

    def no_direct(path, flags, mode=0o777):
        if flags & os.O_DIRECT:
            refused.append(path)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, mode)

    monkeypatch.setattr("engine.block_file.os.open", no_direct)
    grad = lying(5000, 7)
    (record,) = written(tmp_path, [grad])
    assert len(refused) == 1
    assert torch.equal(record.grad, grad)


def test_a_disk_with_room_for_what_is_needed_and_no_more_is_filled_to_the_end(
    tmp_path, monkeypatch
):
    allocate = os.posix_fallocate

    def five_blocks(descriptor: int, offset: int, count: int) -> None:
        if offset + count > 5 * BLOCK:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, offset, count)

    monkeypatch.setattr("engine.block_file.os.posix_fallocate", five_blocks)
    file = BlockFile(tmp_path / "file")
    assert [file.reserve(2 * BLOCK), file.reserve(2 * BLOCK)] == [0, 2 * BLOCK]
    with pytest.raises(OSError, match="No space left"):
        file.reserve(2 * BLOCK)
    assert file.reserve(BLOCK) == 4 * BLOCK
    file.close()
    assert (tmp_path / "file").stat().st_size == 5 * BLOCK
