"""A damaged checkpoint is refused with file and tensor; an older whole one takes its place."""

import json
import logging
import os
import pickle
import random
import shutil
import struct

import pytest
import torch
from safetensors.torch import save_file

from engine import checkpoint
from engine.checkpoint import CheckpointError
from tests.engine.checkpoints import IDENTITY, vectors, write

FILES = ("checkpoint.json", "shard-00.safetensors", "shard-01.safetensors")


def load(folder) -> None:
    """Read all there is."""
    found = checkpoint.read(folder)
    for shard in range(2):
        found.read_shard(shard)


@pytest.mark.parametrize("file", FILES)
def test_no_flipped_bit_goes_unnoticed(tmp_path, file):
    path = write(tmp_path).folder / file
    intact, rng = path.read_bytes(), random.Random(file)
    for _ in range(100):
        damaged = bytearray(intact)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=file):
            load(path.parent)


@pytest.mark.parametrize("file", FILES)
def test_no_torn_file_goes_unnoticed(tmp_path, file):
    path = write(tmp_path).folder / file
    intact = path.read_bytes()
    for length in range(0, len(intact), 7):
        path.write_bytes(intact[:length])
        with pytest.raises(CheckpointError, match=file):
            load(path.parent)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(tmp_path, file):
    path = write(tmp_path).folder / file
    path.unlink()
    with pytest.raises(CheckpointError, match=file):
        load(path.parent)


def test_swapped_shard_files_are_noticed(tmp_path):
    folder = write(tmp_path).folder
    (folder / FILES[1]).rename(folder / "kept")
    (folder / FILES[2]).rename(folder / FILES[1])
    (folder / "kept").rename(folder / FILES[2])
    with pytest.raises(CheckpointError, match=r"shard-00.safetensors: tensor '.*' was altered"):
        load(folder)


def test_a_shard_file_of_another_checkpoint_is_noticed(tmp_path):
    for id in range(2):
        write(tmp_path, id)
    shutil.copy(tmp_path / "000000" / FILES[2], tmp_path / "000001" / FILES[2])
    with pytest.raises(CheckpointError, match=r"000001/shard-01.safetensors: tensor .* altered"):
        load(tmp_path / "000001")


def test_an_altered_value_is_named_with_both_digests(tmp_path):
    path = write(tmp_path).folder / FILES[2]
    changed = vectors(1)
    changed["velocity"][7] += 1.0
    save_file(changed, path)
    with pytest.raises(CheckpointError, match=r"'velocity' was altered: SHA-256 \w{64}, want "):
        load(path.parent)


def test_a_tensor_too_many_or_too_few_is_noticed(tmp_path):
    path = write(tmp_path).folder / FILES[1]
    for tensors in ({"values": vectors(0)["values"]}, vectors(0) | {"more": torch.zeros(1)}):
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=r"holds \[.*\], want \['values', 'velocity'\]"):
            load(path.parent)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '"text"', "null", "{}", '{"format": 99}', '{"format": 1}']
)
def test_a_document_that_is_none_is_named(tmp_path, text):
    path = write(tmp_path).folder / FILES[0]
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"000000/checkpoint.json"):
        load(path.parent)


def test_a_document_that_somebody_edited_is_refused(tmp_path):
    path = write(tmp_path).folder / FILES[0]
    document = json.loads(path.read_text())
    document["counted"][0][3] += 8
    path.write_text(json.dumps(document, indent=1))
    with pytest.raises(CheckpointError, match="altered"):
        load(path.parent)


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = write(tmp_path).folder / FILES[1]
    for dump in (torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))):
        dump({"values": Bomb()}, path)
        with pytest.raises(CheckpointError, match=FILES[1]):
            load(path.parent)
    assert not (tmp_path / "exploded").exists()


def test_a_header_that_claims_to_be_huge_is_refused(tmp_path):
    path = write(tmp_path).folder / FILES[1]
    path.write_bytes(struct.pack("<Q", 2**40) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=FILES[1]):
        load(path.parent)


@pytest.mark.parametrize("file", FILES)
def test_the_newest_whole_one_wins_and_the_damaged_one_is_named(tmp_path, caplog, file):
    for id in range(3):
        write(tmp_path, id)
    (tmp_path / "000002" / file).write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(tmp_path, IDENTITY).id == 1
    (record,) = caplog.records
    assert "checkpoint skipped" in record.message
    assert f"000002/{file}" in record.message


def test_when_all_are_damaged_the_run_is_refused_and_not_begun_anew(tmp_path, caplog):
    for id in range(2):
        write(tmp_path, id)
        (tmp_path / f"{id:06d}" / FILES[0]).unlink()
    with pytest.raises(CheckpointError, match=r"(?s)every .* damaged:\n.*000001.*000000.*remove"):
        checkpoint.newest(tmp_path, IDENTITY)
    assert len(caplog.records) == 2
