"""The script behind the vendored sets: restricted reading, the same bytes every time."""

import gzip
import pickle
import struct
import tarfile

import numpy as np
import pytest

from data.builtin.make_builtin import Labelled, read_idx, read_pickled_array, write_dataset
from tests.data.pictures import contents


class Attack:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_wants_more_than_an_array_is_refused(capsys):
    with pytest.raises(pickle.UnpicklingError, match=r"builtins.print is not needed"):
        read_pickled_array(gzip.compress(pickle.dumps(Attack())))
    assert capsys.readouterr().out == ""


def test_a_pickle_of_something_else_is_refused():
    with pytest.raises(TypeError, match="holds list"):
        read_pickled_array(gzip.compress(pickle.dumps([1])))


def test_idx_files_are_read_by_their_header(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2, 3, 4) + values.tobytes()))
    np.testing.assert_array_equal(read_idx(path), values)
    path.write_bytes(gzip.compress(b"\x89PNG and so on"))
    with pytest.raises(ValueError, match="expected an IDX file"):
        read_idx(path)


def test_the_same_images_give_the_same_bytes_and_labels_follow_the_sorted_names(tmp_path):
    rng = np.random.default_rng(0)
    part = Labelled(rng.integers(0, 256, (4, 8, 8), dtype=np.uint8), np.array([0, 1, 0, 1]))
    for name in ("one", "two"):
        write_dataset(tmp_path / name, ("zebra", "ant"), part, part)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (tmp_path / "one/classes.txt").read_text() == "ant\nzebra\n"
    with tarfile.open(tmp_path / "one/train.tar.gz") as tar:
        labels = [tar.extractfile(m).read() for m in tar if m.name.endswith(".cls")]
    assert labels == [b"1", b"0", b"1", b"0"]
