"""The record of an iteration: whole, of this run, and without what it does not need."""

import json

import pytest

from engine.identity import CheckpointMismatchError
from engine.sandblaster.record import (
    IterationRecord,
    read_record,
    record_folder,
    write_record,
)
from engine.sandblaster.training import named_in


def record(number: int, **changed) -> IterationRecord:
    fields = {
        "number": number,
        "epoch": 1,
        "identity": {"data": "points"},
        "optimiser": {"iterate": {"loss": 0.1 + 0.2, "point": "x1"}},
        "kept": [{"x1": {"folder": f"{number:06d}", "sha256": "ab"}}],
        "num_samples": 10,
        "elapsed_s": 1.5,
    }
    return IterationRecord(**fields | changed)


def test_a_record_comes_back_to_the_last_bit(tmp_path):
    write_record(tmp_path, record(1))
    assert read_record(tmp_path, {"data": "points"}) == record(1)
    assert read_record(tmp_path / "elsewhere", {}) is None


def test_a_record_of_another_run_is_refused_with_the_difference(tmp_path):
    write_record(tmp_path, record(1))
    with pytest.raises(CheckpointMismatchError, match="data: record points, this run digits"):
        read_record(tmp_path, {"data": "digits"})


def test_vectors_that_no_record_names_any_more_are_removed(tmp_path):
    for number in (1, 2, 3):
        record_folder(tmp_path, number).mkdir()
    old = {"s0": {"folder": "000001", "sha256": "cd"}}
    new = {"x1": {"folder": "000003", "sha256": "ab"}}
    write_record(tmp_path, record(3, kept=[old | new]))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["000001", "000003", "record.json"]


def test_a_record_that_cannot_be_written_leaves_the_one_before(tmp_path):
    write_record(tmp_path, record(1))
    (tmp_path / "record.json.partial").mkdir()
    with pytest.raises(OSError, match=r"record\.json\.partial"):
        write_record(tmp_path, record(2))
    assert read_record(tmp_path, {"data": "points"}) == record(1)


def test_a_file_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(ValueError, match="no record of format 1"):
        read_record(tmp_path, {})


def test_kept_are_the_vectors_that_a_record_names_and_the_history_but_not_its_spare_slot():
    names = ("x0", "x1", "grad0", "grad1", "direction", "s0", "y0", "s1", "y1", "steepest")
    told = {"iterate": {"point": "x1", "grad": "grad1"}, "memory": {"slots": [0]}}
    assert named_in(told, names) == {"x1", "grad1", "s0", "y0"}
