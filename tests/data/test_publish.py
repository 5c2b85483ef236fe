"""A published file is whole or absent."""

import pytest

from data.publish import published, remove_partials


def test_the_file_appears_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "a.tar"
    with published(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b"whole")
    assert path.read_bytes() == b"halfwhole"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"old")

    def fail():
        with published(path) as file:
            file.write(b"new")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space") as caught:
        fail()
    assert caught.value.__notes__ == [f"while writing {path}, which is left as it was"]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_two_writers_of_one_path_do_not_mix(tmp_path):
    path = tmp_path / "a.tar"
    with published(path) as first, published(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # renamed last


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    keep = tmp_path / "a.tar"
    keep.write_bytes(b"")
    (tmp_path / ".a.tar.0123.partial").write_bytes(b"torn")
    remove_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [keep]
