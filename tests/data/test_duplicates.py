"""Images with the same bytes are told by content, however staging went."""

import random
from collections import defaultdict

import numpy as np
import pytest

from data import duplicates
from data.duplicates import LIST, Copy, find_repeated, read_duplicates
from data.image_digests import LEFT_OUT
from data.manifest import DuplicateCounts
from data.staging import stage, staged_folder
from tests.data.pictures import contents, encoded, images_of, picture, write_archive, write_tree
from tests.data.staged import config_of, dies_at


def with_copies():
    """Of 8 training and 4 test images: one in both splits, one twice in each, one bad twice."""
    images = images_of(num_train=4, num_test=2)
    images["test/dog/0001.jpg"] = images["train/cat/0001.jpg"]
    images["train/dog/0003.jpg"] = images["train/dog/0000.jpg"]
    images["test/cat/0001.jpg"] = images["test/cat/0000.jpg"]
    return images | {"train/cat/bad.jpg": b"", "test/dog/bad.jpg": b""}


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", with_copies())


@pytest.fixture
def config(tree):
    return config_of(tree, samples_per_tar=3, max_bad_fraction=0.5)


def told(folder):
    """The images listed, content by content, sorted."""
    return [
        sorted((copy.split, copy.class_name, copy.member) for copy in found.copies)
        for found in read_duplicates(folder)
    ]


def test_they_are_counted_and_named_those_in_both_splits_first(config, tree, tmp_path):
    result = stage(config, tmp_path)
    assert result.manifest.duplicates == DuplicateCounts(1, 1, 1)
    both, *others = told(result.folder)
    assert both == [("test", "dog", "test/dog/0001.jpg"), ("train", "cat", "train/cat/0001.jpg")]
    assert sorted(others) == [
        [("test", "cat", "test/cat/0000.jpg"), ("test", "cat", "test/cat/0001.jpg")],
        [("train", "dog", "train/dog/0000.jpg"), ("train", "dog", "train/dog/0003.jpg")],
    ]
    first = read_duplicates(result.folder)[0]
    assert (first.num_train, first.num_test) == (1, 1)
    assert first.copies[0] == Copy("train", "cat", str(tree), "train/cat/0001.jpg")


def test_without_any_there_is_no_list(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of())
    result = stage(config_of(tree), tmp_path)
    assert result.manifest.duplicates == DuplicateCounts(0, 0, 0)
    assert not (result.folder / LIST).exists()
    assert read_duplicates(result.folder) == []


def test_one_image_many_times_is_one_row_that_names_a_few(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_NAMED", 2)
    images = {
        f"{split}/{name}/{n}.jpg": encoded(picture(1))
        for split in ("train", "test")
        for name in ("cat", "dog")
        for n in range(9)
    }
    result = stage(config_of(write_tree(tmp_path / "tree", images)), tmp_path)
    assert result.manifest.duplicates == DuplicateCounts(18, 17, 17)
    (found,) = read_duplicates(result.folder)
    assert (found.num_train, found.num_test) == (18, 18)
    assert [copy.split for copy in found.copies] == ["train", "train", "test", "test"]


def test_more_than_are_listed_are_counted(config, tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_LISTED", 1)
    result = stage(config, tmp_path)
    assert result.manifest.duplicates == DuplicateCounts(1, 1, 1)
    assert [found.num_test for found in read_duplicates(result.folder)] == [1]


def test_killed_anywhere_the_same_command_lists_the_same(tmp_path):
    path = write_archive(tmp_path / "pets.tar.gz", with_copies(), "w:gz")
    config = config_of(path, "archive", samples_per_tar=4, max_bad_fraction=0.5)
    reference = contents(stage(config, tmp_path / "reference").folder)
    assert LIST in reference
    for step in range(1, 10_000, 3):
        root = tmp_path / f"killed-{step}"
        if not dies_at(step, lambda root=root: stage(config, root)):
            break
        stage(config, root)
        assert contents(staged_folder(root, config)) == reference
    assert step > 20


@pytest.mark.parametrize("content", [b"", b"x", None])
def test_digests_that_are_torn_or_of_another_tar_are_read_from_the_tar(config, tmp_path, content):
    def interrupted(work, plans):
        yield from map(work, plans[:3])
        raise KeyboardInterrupt

    reference = contents(stage(config, tmp_path / "reference").folder)
    with pytest.raises(KeyboardInterrupt):
        stage(config, tmp_path, interrupted)
    for path in staged_folder(tmp_path, config).rglob("*.digests"):
        whole = path.read_bytes()
        path.write_bytes(bytes(len(whole)) if content is None else whole[:-1] * len(content))
    assert stage(config, tmp_path).tars_kept == 3
    assert contents(staged_folder(tmp_path, config)) == reference


def test_a_repair_leaves_the_list_as_it_was(config, tmp_path):
    result = stage(config, tmp_path)
    whole = contents(result.folder)
    again = stage(config, tmp_path, rewrite={result.manifest.train[0].file})
    assert again.manifest == result.manifest
    assert contents(result.folder) == whole


def test_what_changed_in_one_tar_is_compared_with_the_tars_that_were_kept(config, tree, tmp_path):
    """An original is edited in place, which nobody notices, and its tar is lost."""
    result = stage(config, tmp_path)
    write_tree(tree, {"train/cat/0002.jpg": with_copies()["test/dog/0000.jpg"]})
    for entry in result.manifest.train:
        if b"train/cat/0002.jpg" in (result.folder / entry.file).read_bytes():
            (result.folder / entry.file).unlink()
    again = stage(config, tmp_path)
    assert again.tars_written == 1
    assert again.manifest.duplicates == DuplicateCounts(2, 1, 1)
    assert contents(again.folder)[LIST] == contents(stage(config, tmp_path / "new").folder)[LIST]


@pytest.mark.parametrize("content", [b"{}", b"\xff", b'{"sha256": 1}'])
def test_a_damaged_list_is_named(tmp_path, content):
    (tmp_path / LIST).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path / LIST}: is no list of duplicates"):
        read_duplicates(tmp_path)


@pytest.mark.parametrize("seed", range(50))
def test_whole_digests_are_compared_wherever_they_lie(seed):
    """Few values for the first eight bytes and the last ones, zeros among them."""
    rng = random.Random(seed)
    pool = [
        bytes([rng.randrange(2)]) * 8 + rng.randbytes(2) + bytes(20) + bytes([0, rng.randrange(2)])
        for _ in range(40)
    ]
    every = rng.choices([*pool, LEFT_OUT], k=rng.choice((0, 1, 2, 60)))
    cuts = sorted(rng.choices(range(len(every) + 1), k=3))
    bounds = list(zip([0, *cuts], [*cuts, len(every)], strict=True))

    def read():
        return (np.frombuffer(b"".join(every[a:b]), "S32") for a, b in bounds)

    found = find_repeated(read, len(every))
    where = defaultdict(list)
    for position, digest in enumerate(every):
        where[digest].append(position)
    expected = {d: at for d, at in where.items() if len(at) > 1 and d != LEFT_OUT}
    groups = {
        bytes(found.digests[a]).ljust(32, b"\0"): found.positions[a : a + n].tolist()
        for a, n in zip(found.starts.tolist(), found.sizes.tolist(), strict=True)
    }
    assert groups == expected
