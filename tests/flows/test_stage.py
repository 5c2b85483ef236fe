"""Verifying and repairing staged data by the flow and by the command."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from data.staged_tar import DamagedTar
from flows.stage import stage
from tests.data.pictures import images_of, write_tree
from tests.flows.conftest import FinishedRun, tiny

pytestmark = pytest.mark.flow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copied(finished: FinishedRun, tmp_path: Path) -> tuple[list[str], Path]:
    """Overrides of a run whose staged data is a copy, and one of its training tars."""
    staged = shutil.copytree(finished.root / "staged", tmp_path / "staged")
    overrides = [*finished.overrides, f"paths.staged={staged}", f"paths.outputs={tmp_path}/outputs"]
    return overrides, next(staged.glob("fashion-mnist-*/train-000001.tar"))


def damage(tar: Path) -> bytes:
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    return whole


def test_a_flipped_bit_is_found_and_repaired_with_the_same_bytes(
    copied: tuple[list[str], Path],
) -> None:
    overrides, tar = copied
    stage(overrides=overrides, action="verify")
    whole = damage(tar)
    others = {path: path.stat().st_ino for path in tar.parent.glob("*.tar") if path != tar}
    with pytest.raises(DamagedTar, match=rf"{tar}: holds images .* SHA-256.*; samples hit: \d+_"):
        stage(overrides=overrides, action="verify")
    stage(overrides=overrides, action="repair")
    assert tar.read_bytes() == whole
    assert {path: path.stat().st_ino for path in others} == others
    stage(overrides=overrides, action="verify")


def test_the_command_tells_the_damage_once_and_fails(copied: tuple[list[str], Path]) -> None:
    overrides, tar = copied
    damage(tar)
    command = [sys.executable, "-m", "flows.stage", "--verify", *overrides]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert ended.stderr.count(f"error: {tar}: holds images that are not those of") == 1


def test_verify_and_repair_exclude_each_other() -> None:
    command = [sys.executable, "-m", "flows.stage", "--verify", "--repair"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "--verify and --repair exclude each other: give one of them\n"


def test_what_was_staged_can_be_looked_at_in_the_ui(finished: FinishedRun) -> None:
    with get_client(sync_client=True) as client:
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
    shown = {artifact["key"]: artifact["data"] for artifact in artifacts}
    for name in ("fashion-mnist", "digits"):
        assert "data:image/jpeg;base64," in shown[f"contact-sheet-{name}"]
        assert '"training images"' in shown[f"images-of-each-class-{name}"]
        assert '"below 32"' in shown[f"smallest-sides-of-the-images-{name}"]


@pytest.mark.usefixtures("prefect_server")
def test_images_with_the_same_bytes_are_warned_of_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = images_of()
    images["test/dog/0000.jpg"] = images["train/cat/0000.jpg"]
    tree = write_tree(tmp_path / "tree", images)
    with caplog.at_level(logging.WARNING):
        stage(overrides=tiny(tmp_path, "data=folder", f"data.path={tree}", "data.name=twins"))
    told = [record.getMessage() for record in caplog.records if "bytes of" in record.getMessage()]
    (list_of,) = (tmp_path / "staged").glob("twins-*/duplicates.jsonl")
    assert len(told) == 1
    assert told[0].startswith("twins: 1 test images have the bytes of training images; 0 training")
    assert told[0].endswith(f"listed in {list_of}")
    with get_client(sync_client=True) as client:
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
    shown = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert "train, cat: train/cat/0000.jpg" in shown["images-with-the-same-bytes-twins"]


def test_the_report_tells_classes_and_sizes(finished: FinishedRun) -> None:
    report = (finished.folder / "report.md").read_text()
    assert "<summary>Images of each class: 10</summary>" in report
    assert "<summary>Smallest sides of the images: 1</summary>" in report
