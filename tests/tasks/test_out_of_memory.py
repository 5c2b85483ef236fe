"""The kernel's count of processes killed for want of memory, in either version of cgroups."""

import os
from pathlib import Path

import pytest

from tasks import out_of_memory
from tasks.out_of_memory import counter_of, oom_kills

V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
V2 = "low 0\nhigh 0\nmax 7\noom 5\noom_kill 3\noom_group_kill 0\n"


@pytest.mark.parametrize("text", [V1, V2])
def test_the_count_is_that_of_kills(tmp_path: Path, text: str) -> None:
    counter = tmp_path / "counter"
    counter.write_text(text)
    assert oom_kills(counter) == 3


def test_a_cgroup_that_is_gone_counts_nothing(tmp_path: Path) -> None:
    assert oom_kills(tmp_path / "gone") == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("4:memory:/job/7", "memory/job/7/memory.oom_control"),
        ("0::/job/7", "job/7/memory.events"),
        ("4:cpu,memory:/job/7", "memory/job/7/memory.oom_control"),
    ],
)
def test_the_counter_is_that_of_the_process_s_own_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.setattr(out_of_memory, "_CGROUPS", tmp_path)
    counter = tmp_path / expected
    counter.parent.mkdir(parents=True)
    counter.write_text(V2)
    root = counter.name if line.startswith("0") else f"memory/{counter.name}"
    (tmp_path / root).write_text(V2)  # of all: the nearer one is meant
    found = next(path for path in out_of_memory._candidates([line]) if out_of_memory._counts(path))
    assert found == counter


def test_in_a_container_the_tree_begins_at_its_own_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_of_memory, "_CGROUPS", tmp_path)
    (tmp_path / "memory").mkdir()
    for counter in ("memory/memory.oom_control", "memory.events"):
        (tmp_path / counter).write_text(V1)
    assert counter_of(os.getpid()) in (
        tmp_path / "memory/memory.oom_control",
        tmp_path / "memory.events",
    )


def test_a_process_that_nobody_counts_for_has_no_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_of_memory, "_CGROUPS", tmp_path)
    assert counter_of(os.getpid()) is None
