"""Samples that go through the making of a tar together: the tar is as if each had gone alone."""

import hashlib
import itertools
import json
import warnings

import pytest
import webdataset

import data.sample_groups
from data.direct_file import BUFFER_BYTES
from data.staging import stage
from tests.data.pictures import contents, encoded, picture, write_tree
from tests.data.staged import config_of

CLASSES = ("cat", "dog", "ü" * 60)


def odd_images():
    """Name → bytes: good ones, and between them what moves those behind it."""
    numbers = itertools.count()

    def some(kind):
        number = next(numbers)
        if kind == "broken":
            return b"no image %d" % number
        if kind == "large":
            return encoded(picture(number)) + bytes(700_000) + b"\xff\xd9"
        return encoded(picture(number), kind)

    kinds = ("JPEG", "broken", "JPEG", "PNG", "large", "JPEG", "broken")
    names = [
        (f"train/{name}/{kind}{index}.JPEG", kind)
        for name in CLASSES[:2]
        for index, kind in enumerate(kinds * 8)
    ]
    # Their JSON needs three blocks.
    names += [(f"train/{CLASSES[2]}/{'ü' * 60}{index}.JPEG", "JPEG") for index in range(4)]
    names += [(f"test/{name}/{index}.jpg", "JPEG") for name in CLASSES for index in range(2)]
    return {name: some(kind) for name, kind in names}


@pytest.fixture
def config(tmp_path):
    tree = write_tree(tmp_path / "tree", odd_images())
    return config_of(tree, decode_all=False, max_bad_fraction=0.5, samples_per_tar=100)


def samples_of(urls):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset does not close its files
        return list(webdataset.WebDataset(urls, shardshuffle=False))


def test_what_is_made_together_has_the_bytes_of_what_is_made_one_by_one(
    config, tmp_path, monkeypatch
):
    together = stage(config, tmp_path / "together").folder
    monkeypatch.setattr(data.sample_groups, "NUM_TOGETHER", 1)
    alone = stage(config, tmp_path / "alone").folder
    assert contents(together) == contents(alone)


def test_every_image_that_can_be_used_lies_in_its_place_whatever_came_before(config, tmp_path):
    result = stage(config, tmp_path)
    urls = [str(path) for path in sorted(result.folder.glob("*.tar"))]
    found = {}
    for sample in samples_of(urls):
        about = json.loads(sample["json"])
        image = sample.get("jpg", sample.get("png"))
        assert hashlib.sha256(image).hexdigest() == about["sha256"]
        assert result.manifest.class_names[int(sample["cls"])] == about["class_name"]
        found[about["name"]] = image
    assert found == {n: d for n, d in odd_images().items() if not d.startswith(b"no image")}
    assert len(result.manifest.quarantined) == 32


def test_those_made_together_fit_into_the_buffer_that_is_written(config, tmp_path, monkeypatch):
    groups = []
    original = data.sample_groups.groups_of

    def noted(*args):
        for group in original(*args):
            groups.append(group)
            yield group

    monkeypatch.setattr("data.tars.groups_of", noted)
    stage(config, tmp_path)
    sizes = [sum(sample.location.num_bytes for sample in group) for group in groups]
    assert max(map(len, groups)) == data.sample_groups.NUM_TOGETHER
    assert max(sizes) < BUFFER_BYTES
    assert sum(map(len, groups)) == len(odd_images())


def test_images_that_are_decoded_go_one_by_one(config, tmp_path, monkeypatch):
    lengths = []
    original = data.sample_groups.groups_of
    monkeypatch.setattr(
        "data.tars.groups_of",
        lambda *args: (lengths.append(len(group)) or group for group in original(*args)),
    )
    staging = config.staging.__class__(**(vars(config.staging) | {"decode_all": True}))
    stage(config.__class__(**(vars(config) | {"staging": staging})), tmp_path)
    assert set(lengths) == {1}
