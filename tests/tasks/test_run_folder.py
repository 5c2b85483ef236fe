"""A run's folder belongs to one configuration."""

from pathlib import Path

import pytest

from tasks.records import file_digest, matching_record, read_record, write_record
from tasks.run_folder import ForeignRunError, claim_run_folder, run_identity

CONFIG = """
data: {name: digits, input: {prefetch: 4}}
model: {name: A, head_widths: [8, 8]}
algorithm: {n_push: 1}
evaluation: {single_side: 32}
"""
WITHOUT_EFFECT = ("data.input.prefetch",)


def test_a_run_of_another_network_is_refused_with_each_setting_that_differs(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    claim_run_folder(folder, CONFIG, WITHOUT_EFFECT)
    other = CONFIG.replace("name: A", "name: B").replace("n_push: 1", "n_push: 4")
    with pytest.raises(ForeignRunError) as refused:
        claim_run_folder(folder, other, WITHOUT_EFFECT)
    message = str(refused.value)
    assert "model.name: A there, B now" in message
    assert "algorithm.n_push: 1 there, 4 now" in message
    assert "head_widths" not in message
    assert "paths.run_name=NAME" in message
    assert (folder / "config.yaml").read_text() == CONFIG


def test_settings_that_change_no_weight_may_change(tmp_path: Path) -> None:
    claim_run_folder(tmp_path, CONFIG, WITHOUT_EFFECT)
    changed = CONFIG.replace("prefetch: 4", "prefetch: 8").replace("side: 32", "side: 40")
    claim_run_folder(tmp_path, changed, WITHOUT_EFFECT)
    assert (tmp_path / "config.yaml").read_text() == changed


def test_the_identity_is_what_decides_the_weights_as_text() -> None:
    assert run_identity(CONFIG, WITHOUT_EFFECT) == {
        "data.name": "digits",
        "model.name": "A",
        "model.head_widths": "[8, 8]",
        "algorithm.n_push": "1",
    }


def test_a_record_counts_only_while_it_was_made_from_the_same(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    write_record(file, {"weights": "abc"}, {"top1_error": 0.5})
    assert matching_record(file, {"weights": "abc"}) == {"top1_error": 0.5}
    assert matching_record(file, {"weights": "abd"}) is None
    assert read_record(file) == {"top1_error": 0.5}


def test_there_is_no_record_before_it_is_written(tmp_path: Path) -> None:
    assert matching_record(tmp_path / "evaluation.json", {}) is None
    assert read_record(tmp_path / "evaluation.json") is None


def test_one_changed_bit_changes_the_digest(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"\x00" * 100)
    before = file_digest(file)
    file.write_bytes(b"\x00" * 99 + b"\x01")
    assert file_digest(file) != before
