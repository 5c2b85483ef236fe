"""Shared memory, in files and kept without a name: private, and found again by a successor."""

import errno
import os
import stat

import pytest
import torch

from engine import memory, memory_folder
from engine.keeper import Keeper
from engine.segment import Segment, gradient_at
from engine.state import Location


@pytest.fixture(params=["files", "kept"])
def root(tmp_path, monkeypatch, request):
    """A folder whose memory has a keeper, or has none."""
    if request.param == "files":
        yield tmp_path
        return
    monkeypatch.setattr(memory_folder, "root", lambda: tmp_path)
    folder = memory_folder.create("token---")
    keeper = Keeper(folder)
    yield folder
    keeper.close()


def test_files_are_private_and_full_of_zeros(root):
    mapped = memory.create(root / "file", 10_000)
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o600
    assert mapped[:] == bytes(10_000)


def test_a_successor_sees_what_the_owner_wrote(root):
    memory.create(root / "file", 100)[10:13] = b"abc"
    assert memory.open_existing(root / "file", 100)[10:13] == b"abc"


def test_an_existing_file_is_not_made_anew(root):
    memory.create(root / "file", 100)[:3] = b"abc"
    with pytest.raises(FileExistsError):
        memory.create(root / "file", 100)
    assert memory.open_existing(root / "file", 100)[:3] == b"abc"


def test_a_file_of_another_size_is_refused(root):
    memory.create(root / "file", 100)
    with pytest.raises(ValueError, match="file: 100 bytes, want 99"):
        memory.open_existing(root / "file", 99)


def test_the_memory_of_a_file_is_reserved_at_once(root):
    """Or a memory file system that is too small would end the process later, by SIGBUS."""
    memory.create(root / "file", 10_000_000)
    assert (root / "file").stat().st_blocks * 512 >= 10_000_000


def test_too_little_memory_is_an_error_that_names_file_and_size(root):
    with pytest.raises(OSError, match=rf"{2**60} bytes.*file") as caught:
        memory.create(root / "file", 2**60)
    assert caught.value.errno in {errno.ENOSPC, errno.EFBIG}
    assert not list(root.glob("file*"))


def test_a_file_is_never_seen_before_it_has_its_size(root, monkeypatch):
    def killed(*arguments: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_fallocate", killed)
    with pytest.raises(KeyboardInterrupt):
        memory.create(root / "file", 100)
    monkeypatch.undo()
    assert not (root / "file").exists()


def test_both_sides_of_a_segment_see_the_same_vectors(root):
    replica = Segment(root / "segment", 5000, torch.float32, new=True)
    shard = Segment(root / "segment", 5000, torch.float32, new=False)
    for i, vector in enumerate([*replica.gradients, *replica.parameters]):
        vector.fill_(i + 1.0)
    found = [vector.unique().tolist() for vector in [*shard.gradients, *shard.parameters]]
    assert found == [[1.0], [2.0], [3.0], [4.0]]
    assert shard.nonce == replica.nonce


def test_segments_have_nonces_of_their_own(root):
    nonces = {Segment(root / f"{i}", 10, torch.float32, new=True).nonce for i in range(5)}
    assert len(nonces) == 5


@pytest.mark.parametrize("slot", [0, 1])
def test_a_gradient_is_found_again_where_its_location_says(root, slot):
    segment = Segment(root / "segment", 3000, torch.float64, new=True)
    segment.gradients[slot].copy_(torch.arange(3000.0))
    found = gradient_at(segment.location(slot, 1008), 500, torch.float64)
    assert found.tolist() == list(range(1008, 1508))


def test_a_gradient_outlives_the_removal_of_its_file_while_it_is_mapped(root):
    segment = Segment(root / "segment", 10, torch.float32, new=True)
    segment.gradients[0].fill_(3.0)
    found = gradient_at(Location(str(segment.path), 4096), 10, torch.float32)
    segment.path.unlink()
    assert found.tolist() == [3.0] * 10
