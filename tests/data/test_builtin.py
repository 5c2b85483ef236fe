"""The built-in data sets: complete, what their README says, and without overlap."""

import hashlib
import shutil
from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from data.config import BUILTIN_NAMES
from data.decode import decode_rgb
from data.sources import builtin
from data.sources.builtin import VENDORED, builtin_source
from data.sources.source import SourceError

VENDORED_NAMES = ("animal-mnist", "fashion-mnist")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    spools = tmp_path_factory.mktemp("spools")
    return {name: builtin_source(name, spools / name) for name in BUILTIN_NAMES}


@pytest.fixture(params=BUILTIN_NAMES)
def named_source(request, sources):
    return request.param, sources[request.param]


def images(source, split):
    return [sample.location.read() for sample in source.samples(split)]


def test_counts_are_the_documented_ones(named_source):
    name, source = named_source
    counts = {split: len(list(source.samples(split))) for split in ("train", "test")}
    assert (
        counts
        == {
            "animal-mnist": {"train": 7748, "test": 1968},
            "digits": {"train": 1442, "test": 355},
            "fashion-mnist": {"train": 12_000, "test": 2_000},
        }[name]
    )


def test_ten_sorted_classes_each_in_both_splits(named_source):
    _, source = named_source
    assert len(source.class_names) == 10
    assert list(source.class_names) == sorted(source.class_names)
    for split in ("train", "test"):
        assert {sample.label for sample in source.samples(split)} == set(range(10))


def test_names_are_unique_and_no_test_image_is_also_a_training_image(named_source):
    name, source = named_source
    samples = [*source.samples("train"), *source.samples("test")]
    assert len({sample.name for sample in samples}) == len(samples)
    train, test = set(images(source, "train")), set(images(source, "test"))
    assert not train & test
    if name == "animal-mnist":  # deduplicated
        assert len(train) + len(test) == 9716


def test_images_are_small_and_grey(named_source):
    name, source = named_source
    side = 8 if name == "digits" else 28
    for data in images(source, "test")[:50]:
        rgb = decode_rgb(data, side * side)
        assert rgb.shape == (side, side, 3)
        assert (rgb == rgb[..., :1]).all()


def test_digits_are_those_of_scikit_learn(sources):
    source = sources["digits"]
    official = load_digits()
    for split in ("train", "test"):
        for sample in list(source.samples(split))[:100]:
            index = int(sample.name.split("/")[-1].removesuffix(".png"))
            grey = decode_rgb(sample.location.read(), 64)[..., 0].astype(float)
            np.testing.assert_array_equal(np.round(grey * 16 / 255), official.images[index])
            assert sample.label == official.target[index]


@pytest.mark.parametrize("name", VENDORED_NAMES)
def test_the_readme_counts_each_class_and_the_licence_lies_beside(name, sources):
    source = sources[name]
    counts = {
        split: Counter(sample.label for sample in source.samples(split))
        for split in ("train", "test")
    }
    readme = (VENDORED / name / "README.md").read_text()
    for label, class_name in enumerate(source.class_names):
        row = f"| {class_name} | {counts['train'][label]:,} | {counts['test'][label]:,} |"
        assert row in readme
    assert "Permission is hereby granted" in (VENDORED / name / "LICENSE").read_text()


@pytest.mark.parametrize("name", VENDORED_NAMES)
def test_the_listed_digests_are_right(name):
    for line in (VENDORED / name / "SHA256SUMS").read_text().splitlines():
        digest, file = line.split()
        assert hashlib.sha256((VENDORED / name / file).read_bytes()).hexdigest() == digest


def test_a_changed_vendored_tar_is_refused(tmp_path, monkeypatch):
    folder = shutil.copytree(VENDORED / "animal-mnist", tmp_path / "animal-mnist")
    with (folder / "train.tar.gz").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    monkeypatch.setattr(builtin, "VENDORED", tmp_path)
    with pytest.raises(SourceError, match=r"train.tar.gz: differs from its SHA256SUMS"):
        builtin_source("animal-mnist", tmp_path / "spool")
