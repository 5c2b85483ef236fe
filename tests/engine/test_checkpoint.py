"""Checkpoints: complete or invisible, the newest complete one wins."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from engine import checkpoint
from engine.identity import CheckpointMismatchError
from tests.engine.checkpoints import COUNTED, IDENTITY, vectors, write


@contextmanager
def almost_full_disk() -> Iterator[None]:
    """No file can grow beyond 1,000 bytes, pytest's own output included: be brief."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_everything_comes_back_as_it_was_written(tmp_path):
    written = write(tmp_path, id=3, final=True)
    found = checkpoint.newest(tmp_path, IDENTITY)
    assert found == written == checkpoint.read(tmp_path / "000003")
    assert (found.id, found.final, found.num_steps, found.elapsed_s) == (3, True, 7, 1.25)
    assert found.counted == COUNTED
    assert found.num_counted == 56
    assert [shard.version for shard in found.shards] == [17, 18]
    for shard in range(2):
        assert all(
            torch.equal(vector, vectors(shard, 3)[name])
            for name, vector in found.read_shard(shard).items()
        )


def test_the_parameters_are_the_shards_values_in_order(tmp_path):
    values = [vectors(shard)["values"] for shard in range(2)]
    assert torch.equal(write(tmp_path).read_parameters(), torch.cat(values))


def test_an_empty_or_absent_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path, IDENTITY) is None
    assert checkpoint.newest(tmp_path / "absent", IDENTITY) is None
    assert checkpoint.next_id(tmp_path / "absent") == 0


def test_the_newest_one_wins(tmp_path):
    for id in (0, 2, 10, 9):
        write(tmp_path, id)
    assert checkpoint.newest(tmp_path, IDENTITY).id == 10


def test_what_is_not_committed_is_invisible(tmp_path):
    write(tmp_path, 0)
    checkpoint.write_shard(checkpoint.partial_folder(tmp_path, 1), 0, vectors(0))
    assert checkpoint.newest(tmp_path, IDENTITY).id == 0
    assert list(tmp_path.glob("*.partial"))


def test_partial_ones_are_removed_and_ids_are_never_used_twice(tmp_path):
    write(tmp_path, 4)
    checkpoint.write_shard(checkpoint.partial_folder(tmp_path, 5), 0, vectors(0))
    assert checkpoint.next_id(tmp_path) == 5
    assert not list(tmp_path.glob("*.partial"))


def test_a_commit_removes_what_is_left_of_abandoned_ones_and_leaves_the_next_alone(tmp_path):
    for id in (1, 3):
        checkpoint.write_shard(checkpoint.partial_folder(tmp_path, id), 0, vectors(0))
    write(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000002", "000003.partial"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_all_but_the_newest_few_are_removed(tmp_path, keep):
    for id in range(5):
        write(tmp_path, id, keep=keep)
    assert [int(f.name) for f in sorted(tmp_path.iterdir())] == list(range(5 - keep, 5))


def test_a_checkpoint_of_another_run_is_refused_with_every_difference(tmp_path):
    write(tmp_path)
    other = {"data": "digits", "model": "E", "shards": "2", "seed": "1"}
    with pytest.raises(CheckpointMismatchError) as caught:
        checkpoint.newest(tmp_path, other)
    lines = str(caught.value).splitlines()
    assert f"{tmp_path / '000000'} belongs to another run" in lines[0]
    assert lines[1:3] == [
        "  model: checkpoint A, this run E",
        "  seed: checkpoint None, this run 1",
    ]
    assert "paths.run_name" in lines[-1]


def test_of_long_lists_that_differ_the_difference_is_shown(tmp_path):
    classes = [f"n{number:08d}" for number in range(1000)]
    write(tmp_path, identity={"class_names": ", ".join(classes)})
    other = {"class_names": ", ".join([*classes[:700], "n99999999", *classes[701:]])}
    with pytest.raises(CheckpointMismatchError) as caught:
        checkpoint.newest(tmp_path, other)
    line = str(caught.value).splitlines()[1]
    assert "n00000700" in line.partition("this run")[0]
    assert "n99999999" in line.partition("this run")[2]
    assert len(line) < 500


def test_a_full_disk_is_an_error_of_the_operating_system_and_names_the_file(
    tmp_path,
):
    with pytest.raises(OSError, match=r"shard-00.safetensors"), almost_full_disk():
        checkpoint.write_shard(tmp_path, 0, {"values": torch.zeros(1000)})
    assert not list(tmp_path.iterdir())  # nor does the torn file take room


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(tmp_path):
    written = write(tmp_path, 0)
    checkpoint.write_shard(checkpoint.partial_folder(tmp_path, 1), 0, vectors(0))
    with pytest.raises(OSError, match="too large"), almost_full_disk():
        checkpoint.commit(
            tmp_path,
            1,
            identity={"long": "x" * 2000},
            shards=written.shards,
            counted=(),
            num_steps=0,
            elapsed_s=0.0,
            final=False,
            keep=1,
        )
    assert checkpoint.newest(tmp_path, IDENTITY) == written
