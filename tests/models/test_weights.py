"""Weight files: complete or invisible, and damage never goes unnoticed."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.weights import WeightFileError, load_weights, save_weights

DESCRIPTION = {"model": {"name": "A", "width_factor": 0.25}, "class_names": ["cat", "dog"]}


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "features.0.weight": torch.randn(2, 3, generator=generator),
        "features.0.bias": torch.zeros(2),
        "half": torch.randn(3, generator=generator).to(torch.bfloat16),
        "scalar": torch.tensor(7),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, state(), DESCRIPTION)
    return path


def test_tensors_and_description_come_back_to_the_last_bit(saved):
    tensors, description = load_weights(saved)
    assert description == DESCRIPTION
    assert tensors.keys() == state().keys()
    for name, tensor in state().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_file_is_plain_safetensors_for_everyone_else(saved):
    assert torch.equal(load_file(saved)["half"], state()["half"])


def test_equal_weights_give_equal_bytes(saved, tmp_path):
    for i in range(5):
        again = tmp_path / f"again{i}.safetensors"
        save_weights(again, dict(reversed(state().items())), dict(reversed(DESCRIPTION.items())))
        assert again.read_bytes() == saved.read_bytes()


def test_views_of_one_flat_vector_are_saved_as_tensors_of_their_own(tmp_path):
    flat = torch.arange(10.0)
    views = {"a": flat[:4].view(2, 2), "b": flat[4:], "overlap": flat[2:6], "t": flat[:6:2]}
    save_weights(tmp_path / "w", views, {})
    tensors, _ = load_weights(tmp_path / "w")
    assert all(torch.equal(tensors[name], view) for name, view in views.items())
    assert (tmp_path / "w").stat().st_size < 2000


def test_the_order_of_a_tensor_in_memory_is_not_saved(tmp_path):
    kernel = torch.arange(54.0).view(2, 3, 3, 3)
    rows_last = kernel.contiguous(memory_format=torch.channels_last)
    save_weights(tmp_path / "w", {"kernel": rows_last}, {})
    assert torch.equal(load_weights(tmp_path / "w")[0]["kernel"], kernel)


def test_no_flipped_bit_goes_unnoticed(saved):
    intact = saved.read_bytes()
    for position in range(len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << (position % 8)
        saved.write_bytes(damaged)
        with pytest.raises(WeightFileError):
            load_weights(saved)


def test_no_missing_or_added_byte_goes_unnoticed(saved):
    intact = saved.read_bytes()
    for wrong in [intact[:end] for end in range(len(intact))] + [intact + b"\0"]:
        saved.write_bytes(wrong)
        with pytest.raises(WeightFileError):
            load_weights(saved)


def test_the_damaged_tensor_is_named(saved):
    intact = bytearray(saved.read_bytes())
    (header_size,) = struct.unpack("<Q", intact[:8])
    start, _ = json.loads(intact[8 : 8 + header_size])["features.0.weight"]["data_offsets"]
    intact[8 + header_size + start] ^= 1
    saved.write_bytes(intact)
    with pytest.raises(WeightFileError, match=r"damaged:\s+features.0.weight: contents differ"):
        load_weights(saved)


def rewritten(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """The same header entry around other tensors."""
    (header_size,) = struct.unpack("<Q", path.read_bytes()[:8])
    metadata = json.loads(path.read_bytes()[8 : 8 + header_size])["__metadata__"]
    save_file(tensors, path, metadata=metadata)
    return path


def test_missing_added_and_reshaped_tensors_are_listed(saved):
    tensors = state()
    del tensors["features.0.bias"]
    tensors["extra"] = torch.zeros(1)
    tensors["features.0.weight"] = tensors["features.0.weight"].view(3, 2)
    with pytest.raises(WeightFileError) as error:
        load_weights(rewritten(saved, tensors))
    assert "features.0.bias: missing" in str(error.value)
    assert "extra: not in the header" in str(error.value)
    assert "features.0.weight: contents differ" in str(error.value)


def test_other_safetensors_and_pickles_are_refused(tmp_path):
    path = tmp_path / "other"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(WeightFileError, match="not a weight file written by this program"):
        load_weights(path)
    torch.save(state(), path)
    with pytest.raises(WeightFileError, match="not safetensors"):
        load_weights(path)


def test_others_may_read_the_file_as_the_umask_grants(saved, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    assert saved.stat().st_mode == plain.stat().st_mode


def test_an_absent_file_is_called_absent(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        load_weights(tmp_path / "nothing")


def test_every_differing_field_is_listed_with_both_values(saved):
    expected = {
        "model": {"name": "B", "width_factor": 0.25, "head": [1, 2]},
        "class_names": ("cat", "cow"),
    }
    with pytest.raises(WeightFileError) as error:
        load_weights(saved, expected)
    lines = str(error.value).splitlines()
    assert lines[0].endswith("weights of another network:")
    assert lines[1:] == [
        '  model.name: found "A", expected "B"',
        "  model.head: found nothing, expected [1, 2]",
        '  class_names: found ["cat", "dog"], expected ["cat", "cow"]',
    ]


def test_fields_that_are_not_expected_are_free(saved):
    assert load_weights(saved, {"model": {"name": "A"}})[1] == DESCRIPTION


def test_a_failed_write_leaves_the_old_file_and_a_stale_partial_is_no_obstacle(saved):
    intact = saved.read_bytes()
    partial = saved.with_name(saved.name + ".partial")
    partial.mkdir()
    with pytest.raises(Exception, match="directory"):
        save_weights(saved, {"a": torch.ones(3)}, {})
    assert saved.read_bytes() == intact
    partial.rmdir()
    partial.write_bytes(b"left by a killed writer")
    save_weights(saved, {"a": torch.ones(3)}, {})
    assert load_weights(saved)[0].keys() == {"a"}
    assert not partial.exists()
