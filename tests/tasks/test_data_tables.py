"""The tables of staged data count what is in the tars."""

import pytest

from data.duplicates import read_duplicates
from data.staging import stage
from tasks.report.data_tables import class_rows, duplicate_rows, quarantine_rows, side_rows
from tests.data.pictures import encoded, images_of, picture, write_tree
from tests.data.staged import config_of


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("tables")
    images = images_of(num_train=6, num_test=2) | {
        "train/dog/large.jpg": encoded(picture(1, 300, 260)),
        "train/dog/larger.jpg": encoded(picture(2, 1100, 1030)),
        "train/cat/broken.jpg": b"",
    }
    tree = write_tree(root / "tree", images)
    return stage(config_of(tree, max_bad_fraction=0.1), root).manifest


def test_each_class_has_its_counts_without_what_was_left_out(manifest):
    counts = [(r["class"], r["training images"], r["test images"]) for r in class_rows(manifest)]
    assert counts == [("cat", "6", "2"), ("dog", "8", "2")]


def test_bars_are_in_proportion(manifest):
    assert [len(row[""]) for row in class_rows(manifest)] == [15, 20]


def test_smallest_sides_are_counted_in_their_ranges(manifest):
    sides = {row["smallest side, pixels"]: row["images"] for row in side_rows(manifest)}
    assert sides == {"below 32": "16", "256 to 319": "1", "1024 or more": "1"}


def test_what_was_left_out_is_listed_with_its_reason(manifest):
    (row,) = quarantine_rows(manifest)
    assert row["member"] == "train/cat/broken.jpg"
    assert row["reason"] == "is empty: 0 bytes"


def test_images_with_the_same_bytes_are_named_with_their_classes(tmp_path):
    images = images_of(num_train=3, num_test=1)
    images["test/dog/0000.jpg"] = images["train/cat/0002.jpg"]
    tree = write_tree(tmp_path / "tree", images | {"train/cat/9.jpg": images["train/cat/0000.jpg"]})
    folder = stage(config_of(tree), tmp_path).folder
    both, twice = duplicate_rows(read_duplicates(folder))
    assert (both["in training"], both["in test"]) == (1, 1)
    assert both["one"] == f"train, cat: train/cat/0002.jpg of {tree}"
    assert both["another"] == f"test, dog: test/dog/0000.jpg of {tree}"
    assert (twice["in training"], twice["in test"]) == (2, 0)
    assert "train/cat/9.jpg" in f"{twice['one']} {twice['another']}"
