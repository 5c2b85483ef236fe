"""Folders of runs: private, and told from those whose owner is dead."""

import os
import stat
import subprocess
import sys

import psutil
import pytest

from engine import memory_folder


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Folders where no other run looks."""
    monkeypatch.setattr(memory_folder, "root", lambda: tmp_path)
    return tmp_path


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_runs_folder_is_private():
    folder = memory_folder.create("0123456789")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.name.endswith("-01234567")


def test_folders_of_dead_owners_are_left_over_and_those_of_living_ones_are_not(root):
    living = memory_folder.create("living--")
    dead = root / f"verydeep-{ended_process()}-1700000000-deadbeef"
    reused = root / f"verydeep-{os.getpid()}-1700000000-another-"  # our number, another start
    for folder in (dead, reused):
        folder.mkdir()
        (folder / "shard-00.state").write_bytes(b"x")
    assert sorted(memory_folder.left_over()) == sorted([dead, reused])
    assert living not in memory_folder.left_over()


def test_a_change_of_the_wall_clock_does_not_make_a_living_owner_dead(root, monkeypatch):
    folder = memory_folder.create("living--")
    boot_time = psutil.boot_time()
    # What the kernel says after the clock was set two hours back.
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot_time - 7200)
    assert memory_folder.left_over() == []
    assert folder.exists()


@pytest.mark.parametrize("name", ["verydeep-", "verydeep-notes", "verydeep-a-b-c", "other-1-2"])
def test_what_is_not_named_like_a_runs_folder_is_left_alone(root, name):
    (root / name).mkdir()
    assert memory_folder.left_over() == []


def test_a_folder_that_is_no_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"notes: want the memory folder of a run"):
        memory_folder.owner_of(tmp_path / "notes")


@pytest.mark.parametrize("writable", [True, False])
def test_folders_are_where_every_process_looks_if_it_may_write_there(monkeypatch, writable):
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/var/tmp")
    monkeypatch.setattr(os, "access", lambda *arguments: writable)
    assert str(memory_folder.root()) == ("/tmp" if writable else "/var/tmp")
