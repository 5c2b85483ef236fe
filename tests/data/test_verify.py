"""Damage anywhere in staged tars is found, named, and mended with the same bytes."""

import os
import random
import shutil

import pytest

from data.manifest import read_manifest
from data.sources.source import SourceError
from data.staging import stage
from data.verify import damaged_tars
from tests.data.pictures import contents, images_of, write_archive, write_tree
from tests.data.staged import config_of


@pytest.fixture
def folder(pets, tmp_path):
    return shutil.copytree(pets, tmp_path / "copy")


def found(folder):
    return list(damaged_tars(folder, read_manifest(folder)))


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_sound_tars_pass(folder):
    assert found(folder) == []


def test_every_cut_at_a_block_is_found(folder):
    path = folder / "train-000001.tar"
    whole = path.read_bytes()
    for length in range(0, len(whole), 512):
        path.write_bytes(whole[:length])
        (damage,) = found(folder)
        assert damage.file == path.name
        assert f"{path}: has {length} bytes" in damage.what


def test_every_flipped_bit_is_found(folder):
    path = folder / "train-000002.tar"
    whole = path.read_bytes()
    rng = random.Random(1)
    for _ in range(400):
        flip(path, rng.randrange(8 * len(whole)))
        assert [damage.file for damage in found(folder)] == [path.name]
        path.write_bytes(whole)


def test_all_damaged_tars_are_found_at_once_with_the_samples_that_are_hit(folder):
    one, other = folder / "train-000000.tar", folder / "test-000000.tar"
    flip(one, 8 * 600)  # inside the first image
    other.unlink()
    first, last = found(folder)
    key = one.read_bytes()[:100].rstrip(b"\0").decode().removesuffix(".jpg")
    assert first.what.endswith(f"; samples hit: {key}")
    assert f"{other}: is missing" in last.what


def test_damage_to_the_structure_is_told(folder):
    path = folder / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[124:135] = b"not a numbe"
    path.write_bytes(data)
    (damage,) = found(folder)
    assert damage.what.endswith("; its structure is unreadable from some member on")


def test_only_the_bad_tar_is_written_again_and_with_the_same_bytes(tmp_path):
    config = config_of(write_tree(tmp_path / "tree", images_of()))
    folder = stage(config, tmp_path).folder
    whole = contents(folder)
    inodes = {path.name: path.stat().st_ino for path in folder.glob("*.tar")}
    flip(folder / "train-000002.tar", 9000)
    result = stage(config, tmp_path, rewrite={damage.file for damage in found(folder)})
    assert (result.tars_written, result.tars_kept) == (1, len(inodes) - 1)
    assert contents(folder) == whole
    changed = [name for name, inode in inodes.items() if (folder / name).stat().st_ino != inode]
    assert changed == ["train-000002.tar"]


def test_a_repair_from_an_original_edited_in_place_is_refused(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of())
    config = config_of(tree)
    folder = stage(config, tmp_path).folder
    manifest = read_manifest(folder)
    names = [entry.file for entry in manifest.entries]
    original = next(tree.rglob("train/*/*.jpg"))
    data = bytearray(original.read_bytes())
    data[-10] ^= 1
    original.write_bytes(data)  # same size, and its folder's time of change stays
    with pytest.raises(SourceError, match=r"came out with other bytes.*changed in place"):
        stage(config, tmp_path, rewrite=set(names))
    assert read_manifest(folder) == manifest


def test_repair_needs_the_source(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of())
    config = config_of(tree)
    folder = stage(config, tmp_path).folder
    shutil.rmtree(tree)
    before = contents(folder)
    with pytest.raises(SourceError, match="does not exist"):
        stage(config, tmp_path, rewrite={"train-000000.tar"})
    assert {n: d for n, d in contents(folder).items() if n in before} == before


@pytest.mark.parametrize("damaged", [set(), {"train-000001.tar"}])
def test_a_repair_takes_a_source_that_was_fetched_again(tmp_path, damaged):
    archive = write_archive(tmp_path / "pets.tar", images_of())
    config = config_of(archive, "archive")
    folder = stage(config, tmp_path).folder
    tars = {name: data for name, data in contents(folder).items() if name.endswith(".tar")}
    os.utime(archive, (1, 1))
    with pytest.raises(SourceError, match=r"pets.tar: changed after it was staged: .*--repair"):
        stage(config, tmp_path)
    for name in damaged:
        flip(folder / name, 9000)
    result = stage(config, tmp_path, rewrite=damaged)
    assert result.tars_written == len(damaged)
    assert {name: contents(folder)[name] for name in tars} == tars
    assert stage(config, tmp_path).tars_written == 0  # it is the source from now on
    flip(folder / "train-000000.tar", 9000)
    assert stage(config, tmp_path, rewrite={"train-000000.tar"}).tars_written == 1
    assert {name: contents(folder)[name] for name in tars} == tars


def test_a_repair_does_not_take_a_source_with_other_images(tmp_path):
    archive = write_archive(tmp_path / "pets.tar", images_of())
    config = config_of(archive, "archive")
    folder = stage(config, tmp_path).folder
    before = contents(folder)
    write_archive(archive, images_of(num_train=9))
    with pytest.raises(SourceError, match=f"changed after it was staged: .* else delete {folder}"):
        stage(config, tmp_path, rewrite={"train-000000.tar"})
    assert {n: d for n, d in contents(folder).items() if n in before} == before
