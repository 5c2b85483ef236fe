"""The JSON beside an image is what the json module would write."""

import json

import pytest

from data.sample_json import JSON_BYTES, sample_json


@pytest.mark.parametrize(
    "name", ['train/a "b"\\c/ü😀\n.jpg', "", "val/ILSVRC2012_val_00000001.JPEG"]
)
@pytest.mark.parametrize(
    "known",
    [
        {},
        {"blacklisted": True},
        {"boxes": [{"class_name": 'a"', "box": [0.5, 1, 2, 3]}], "present": [1], "difficult": []},
    ],
)
def test_it_is_what_json_writes(name, known):
    told = {"class_name": name, "name": name, "width": 500, "height": 375, "sha256": "0" * 64}
    assert sample_json(*told.values(), known) == json.dumps(told | known)


def test_without_names_it_takes_no_more_than_is_planned_for():
    assert len(sample_json("", "", 65535, 65535, "f" * 64, {})) <= JSON_BYTES
