"""Named vectors on a shard: requests carried out once, by whoever owns the memory."""

from pathlib import Path

import pytest
import torch

from engine.batch.vector import Combine, Command, copy, dot
from engine.batch.wire import to_wire
from engine.checkpoint import CheckpointError
from engine.endpoint import Place
from engine.frames import ProtocolError
from engine.sandblaster.vectors import ShardVectors, StaleCoordinatorError
from engine.segment import Segment

PLACE = Place(4, 6, 10, torch.float64)


def shard(folder: Path, index: int = 0) -> ShardVectors:
    """The shard's next owner; its parameters are 0, 1, ... 5."""
    return ShardVectors(folder, index, PLACE, torch.arange(6, dtype=torch.float64))


def ask(sequence: int, *commands: Command, epoch: int = 1) -> dict:
    batch = [to_wire(command) for command in commands]
    return {"op": "commands", "request": [epoch, sequence], "batch": batch}


def read(vectors: ShardVectors, name: str) -> list[float]:
    out = torch.empty(PLACE.count, dtype=PLACE.dtype)
    vectors.fetch(name, out)
    return out.tolist()


def test_commands_work_on_the_parameters_under_their_name(tmp_path):
    vectors = shard(tmp_path)
    answer = vectors.answer(ask(1, Combine("x", ((2.0, "values"),)), dot("x", "values")))
    assert read(vectors, "x") == [0, 2, 4, 6, 8, 10]
    assert answer["scalars"] == [110.0]
    vectors.answer(ask(2, copy("values", "x")))
    assert read(vectors, "values") == [0, 2, 4, 6, 8, 10]


def test_a_request_sent_again_is_answered_again_and_changes_nothing_more(tmp_path):
    vectors = shard(tmp_path)
    vectors.answer(ask(1, copy("x", "values")))
    batch = ask(2, Combine("z", ((1.0, "x"), (1.0, "values"))), dot("z", "x"))
    first = vectors.answer(batch)
    assert vectors.answer(batch) == first
    assert shard(tmp_path).answer(batch) == first
    assert read(vectors, "z") == [0, 2, 4, 6, 8, 10]


def test_a_request_that_comes_after_a_newer_one_is_not_carried_out(tmp_path):
    vectors = shard(tmp_path)
    late = ask(1, copy("x", "values"))
    vectors.answer(late)
    vectors.answer(ask(2, Combine("x", ())))
    assert vectors.answer(late)["late"]
    assert shard(tmp_path).answer(late)["late"]
    assert read(shard(tmp_path), "x") == [0.0] * 6


def test_a_batch_that_a_killed_owner_had_begun_is_carried_out_whole_by_its_successor(tmp_path):
    owner = shard(tmp_path)
    owner.answer(ask(1, copy("x", "values")))
    commands = (Combine("y", ((3.0, "x"),)), Combine("z", ((1.0, "y"), (1.0, "x"))), dot("z", "z"))
    half_done = ask(2, commands[0])
    owner.answer(half_done)
    answer = shard(tmp_path).answer(ask(2, *commands))
    assert answer["scalars"] == [16 * 55.0]


def test_an_older_coordinator_is_refused_and_a_newer_one_counts_from_one(tmp_path):
    vectors = shard(tmp_path)
    vectors.answer(ask(7, copy("x", "values"), epoch=2))
    with pytest.raises(StaleCoordinatorError, match="coordinator 1 was replaced by 2"):
        vectors.answer(ask(8, Combine("x", ()), epoch=1))
    assert "late" not in vectors.answer(ask(1, Combine("x", ()), epoch=3))
    assert read(vectors, "x") == [0.0] * 6


def test_a_batch_that_reads_what_is_not_there_changes_nothing(tmp_path):
    vectors = shard(tmp_path)
    with pytest.raises(KeyError, match="reads \\['nowhere'\\]"):
        vectors.answer(ask(1, Combine("values", ()), copy("x", "nowhere")))
    assert read(vectors, "values") == [0, 1, 2, 3, 4, 5]


def test_a_replica_s_slot_is_read_where_it_lies_and_only_this_shard_s_part(tmp_path):
    segment = Segment(tmp_path / "replica-0002-0001", PLACE.size, PLACE.dtype, new=True)
    segment.gradients[1].copy_(torch.arange(10))
    vectors = shard(tmp_path)
    vectors.answer(ask(1, copy("x", "replica-0002-0001.gradient-1")))
    assert read(vectors, "x") == [4, 5, 6, 7, 8, 9]


def test_a_slot_from_another_host_is_staged_and_outlives_the_owner(tmp_path):
    shard(tmp_path).stage("replica-0002-0001.gradient-0", torch.full((6,), 7.0).double())
    successor = shard(tmp_path)
    successor.answer(ask(1, copy("x", "replica-0002-0001.gradient-0")))
    assert read(successor, "x") == [7.0] * 6


def test_strangers_names_are_refused(tmp_path):
    vectors = shard(tmp_path)
    with pytest.raises(ProtocolError, match="no vector 'x'"):
        read(vectors, "x")
    with pytest.raises(ProtocolError, match="no gradient slot"):
        vectors.stage("values", torch.zeros(6))
    with pytest.raises(ValueError, match=r"'\.\./x' is no name of a vector"):
        vectors.answer(ask(1, copy("../x", "values")))


def test_only_what_has_changed_is_written_and_all_of_it_comes_back(tmp_path):
    memory, disk, other = tmp_path / "memory", tmp_path / "disk", tmp_path / "other"
    memory.mkdir()
    other.mkdir()
    vectors = shard(memory)
    vectors.answer(ask(1, copy("x", "values"), copy("y", "values")))
    first = vectors.keep(disk / "000001", ["x", "y"])["kept"]
    vectors.answer(ask(2, Combine("y", ((5.0, "values"),))))
    second = vectors.keep(disk / "000002", ["x", "y", "not written yet"])["kept"]
    assert second["x"] == first["x"]
    assert second["y"]["folder"] == "000002"

    restored = shard(other)
    request = {"op": "restore", "request": [2, 1], "folder": str(disk), "kept": [second]}
    restored.answer(request)
    assert read(restored, "x") == [0, 1, 2, 3, 4, 5]
    assert read(restored, "y") == [0, 5, 10, 15, 20, 25]

    second["x"]["sha256"] = "0" * 64
    with pytest.raises(CheckpointError, match="'x' was altered"):
        shard(other).answer(request)


def test_a_disk_that_takes_nothing_is_told_of_and_the_shard_goes_on(tmp_path):
    vectors = shard(tmp_path)
    (tmp_path / "a file").touch()
    assert "a file" in vectors.keep(tmp_path / "a file/1", ["values"])["failed"]
    assert vectors.answer(ask(2, dot("values", "values")))["scalars"] == [55.0]
