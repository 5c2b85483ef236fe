"""Data used where it lies: the same mini-batches, in bounded room, and never a wrong byte."""

import shutil
import threading

import fsspec
import pytest
import torch

from data.config import InputConfig
from data.elsewhere import is_elsewhere
from data.fetch import use_in_place
from data.manifest import read_manifest
from data.minibatches import TrainingReader
from data.sources.source import SourceError
from data.staged_tar import DamagedTar
from data.staging import stage
from data.test_images import TestReader
from data.verify import damaged_tars
from tests.data.pictures import images_of, write_tree
from tests.data.staged import config_of

INPUT = InputConfig(side_min=16, side_max=20, crop_size=16, cache_bytes=0)


@pytest.fixture
def config(tmp_path):
    return config_of(write_tree(tmp_path / "tree", images_of()))


@pytest.fixture
def staged(config, tmp_path):
    return stage(config, tmp_path / "there").folder


@pytest.fixture
def url(staged):
    """The same folder in a bucket."""
    memory = fsspec.filesystem("memory")
    for path in staged.iterdir():
        memory.pipe_file(f"memory://bucket/{staged.name}/{path.name}", path.read_bytes())
    yield f"memory://bucket/{staged.name}"
    memory.store.clear()


def largest(staged):
    return max(entry.num_bytes for entry in read_manifest(staged).entries)


def minibatches(folder, epochs=2):
    reader = TrainingReader(folder, INPUT, seed=0)
    return [
        images
        for epoch in range(epochs)
        for tar, size in enumerate(reader.tar_sizes)
        for images, _ in reader.minibatches(epoch, tar, 0, size, 3)
    ]


def here(folder):
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def test_training_in_place_reads_what_training_on_the_original_reads(staged, url, tmp_path):
    room = 2 * largest(staged)
    folder = use_in_place(url, tmp_path / "here", room)
    assert here(folder) == 0
    theirs = minibatches(staged)
    for ours, wanted in zip(minibatches(folder), theirs, strict=True):
        assert torch.equal(ours, wanted)
        assert 0 < here(folder) <= room
    assert len(list(TestReader(folder))) == len(TestReader(staged))


def test_the_local_folder_counts_as_staged_and_is_verified_from_there(config, url, tmp_path):
    folder = use_in_place(url, tmp_path / "here", 10**9)
    shutil.rmtree(tmp_path / "tree")
    result = stage(config, tmp_path / "here")
    assert (result.folder, result.tars_written) == (folder, 0)
    assert list(damaged_tars(folder, result.manifest)) == []


def test_a_tar_damaged_elsewhere_is_refused_and_not_kept(url, tmp_path):
    memory = fsspec.filesystem("memory")
    data = bytearray(memory.cat_file(f"{url}/train-000000.tar"))
    data[700] ^= 1
    memory.pipe_file(f"{url}/train-000000.tar", bytes(data))
    folder = use_in_place(url, tmp_path / "here", 10**9)
    with pytest.raises(DamagedTar, match=rf"{url}/train-000000.tar: .*upload it again"):
        minibatches(folder)
    assert here(folder) == 0


def test_a_tar_damaged_here_is_fetched_again(staged, url, tmp_path):
    folder = use_in_place(url, tmp_path / "here", 10**9)
    wanted = minibatches(folder, epochs=1)
    tar = folder / "train-000000.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    assert all(map(torch.equal, minibatches(folder, epochs=1), wanted))


def test_readers_that_take_each_others_room_all_read_everything(staged, url, tmp_path):
    folder = use_in_place(url, tmp_path / "here", largest(staged))
    wanted = len(minibatches(staged))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(len(minibatches(folder)))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [wanted] * 3


def test_a_cache_smaller_than_a_tar_is_refused(staged, url, tmp_path):
    with pytest.raises(SourceError, match="more than a cache of 1000"):
        use_in_place(url, tmp_path / "here", 1000)
    assert not is_elsewhere(tmp_path / "here" / staged.name)
