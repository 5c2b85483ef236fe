"""A staged tar is what the manifest says, to the last bit, or it is refused by name."""

import random
import shutil
import tarfile

import numpy as np
import pytest

from data.config import InputConfig
from data.manifest import read_manifest
from data.minibatches import TrainingReader
from data.staged_tar import DamagedTar, open_tar
from data.test_images import TestReader


@pytest.fixture
def folder(pets, tmp_path):
    return shutil.copytree(pets, tmp_path / "copy")


@pytest.fixture
def entry(folder):
    return read_manifest(folder).train[0]


def test_the_index_finds_what_tarfile_finds(pets):
    for entry in read_manifest(pets).entries:
        staged = open_tar(pets, entry)
        with tarfile.open(pets / entry.file) as tar, staged.path.open("rb") as file:
            members = {m.name: tar.extractfile(m).read() for m in tar}
            images = [data for name, data in members.items() if name.endswith(".jpg")]
            labels = [int(data) for name, data in members.items() if name.endswith(".cls")]
            assert [staged.image(file, i) for i in range(len(staged))] == images
            assert staged.labels.tolist() == labels
        np.testing.assert_array_equal(staged.sizes, [[20, 16]] * entry.num_samples)
        assert staged.is_jpeg.all()


def test_every_cut_at_a_block_is_noticed(folder, entry):
    path = folder / entry.file
    whole = path.read_bytes()
    for length in range(0, len(whole), 512):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedTar, match=rf"{path}: has {length} bytes.* says {len(whole)}"):
            open_tar(folder, entry)


def test_every_flipped_bit_is_noticed(folder, entry):
    path = folder / entry.file
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(400):
        flipped = bytearray(whole)
        bit = rng.randrange(8 * len(whole))
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedTar, match=f"{path}: .*SHA-256.*--repair writes this tar"):
            open_tar(folder, entry)


def test_a_missing_tar_is_named(folder, entry):
    (folder / entry.file).unlink()
    with pytest.raises(DamagedTar, match=f"{entry.file}: is missing"):
        open_tar(folder, entry)


def test_tars_in_each_others_place_are_noticed(folder):
    one, two = (folder / entry.file for entry in read_manifest(folder).train[:2])
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    with pytest.raises(DamagedTar, match=one.name):
        open_tar(folder, read_manifest(folder).train[0])


def test_readers_refuse_a_damaged_tar_before_its_first_image(folder):
    for file in (read_manifest(folder).train[0].file, read_manifest(folder).test[0].file):
        with (folder / file).open("r+b") as tar:
            tar.seek(700)
            tar.write(b"x")
    reader = TrainingReader(folder, InputConfig(side_min=16, side_max=16, crop_size=16), seed=0)
    with pytest.raises(DamagedTar, match="train-000000"):
        next(reader.minibatches(0, 0, 0, 4, 4))
    with pytest.raises(DamagedTar, match="test-000000"):
        next(iter(TestReader(folder)))
