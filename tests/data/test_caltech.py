"""Caltech-101 and 256: strays are passed over, and the split counts images of each class."""

import gzip
import zipfile

import pytest

from data.sources.source import SourceError
from tests.data.miniature.archives import tarred
from tests.data.pictures import write_archive, write_tree
from tests.data.sources import listed, opened

CLASSES = ("BACKGROUND_Google", "Faces", "Faces_easy", "accordion")
FILES_101 = {
    f"101_ObjectCategories/{name}/image_{i:04d}.jpg": f"{name}{i}".encode()
    for name in CLASSES
    for i in range(1, 13)
}
STRAYS_101 = {"101_ObjectCategories/BACKGROUND_Google/tmp": b"x", "__MACOSX/._x": b"x"}
FILES_256 = {
    f"256_ObjectCategories/{name}/{name[:3]}_{i:04d}.jpg": f"{name}{i}".encode()
    for name in ("056.dog", "198.spider", "257.clutter")
    for i in range(1, 13)
}
STRAYS_256 = {
    "256_ObjectCategories/056.dog/greg/vision309/056_0001.jpg": b"x",
    "256_ObjectCategories/198.spider/RENAME2": b"x",
}
NUMBERS = {"train_per_class": 5, "test_per_class": 4}


def checked(source, num_classes, num_train, num_test):
    found = listed(source)
    assert len(source.class_names) == num_classes
    assert [len(found[split]) for split in ("train", "test")] == [
        num_classes * num_train,
        num_classes * num_test,
    ]
    assert not found["train"].keys() & found["test"].keys()
    for name, (class_name, data) in {**found["train"], **found["test"]}.items():
        assert f"/{class_name}/" in name
        assert data.startswith(class_name.encode())
    return found


@pytest.mark.parametrize("name", ["101_ObjectCategories.tar.gz", "caltech-101.zip", "unpacked"])
def test_caltech_101_in_every_packing_gives_the_same_split(tmp_path, name):
    files = FILES_101 | STRAYS_101
    path = tmp_path / name
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(tarred(files)))
    elif name.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "caltech-101/101_ObjectCategories.tar.gz", gzip.compress(tarred(files))
            )
            archive.writestr("caltech-101/Annotations.tar", tarred({}))
    else:
        write_tree(path, files)
    found = checked(opened(path, "caltech101", **NUMBERS), 4, 5, 4)
    plain = write_archive(tmp_path / "plain.tar", files)
    assert found == listed(opened(plain, "caltech101", **NUMBERS))


def test_caltech_256_tests_with_all_the_rest_and_ignores_strays(tmp_path):
    path = write_archive(tmp_path / "256_ObjectCategories.tar", FILES_256 | STRAYS_256)
    source = opened(path, "caltech256", train_per_class=5, test_per_class=None)
    assert source.class_names == ("056.dog", "198.spider", "257.clutter")
    checked(source, 3, 5, 7)


def test_another_seed_gives_another_split(tmp_path):
    path = write_archive(tmp_path / "256_ObjectCategories.tar", FILES_256)
    splits = [
        listed(opened(path, "caltech256", split_seed=seed, **NUMBERS))["train"].keys()
        for seed in (0, 0, 1)
    ]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_a_class_that_is_too_small_is_named(tmp_path):
    path = write_archive(tmp_path / "256_ObjectCategories.tar", FILES_256)
    with pytest.raises(SourceError, match=r"class 056.dog has 12 images.*train_per_class"):
        opened(path, "caltech256", train_per_class=12)


def test_what_is_no_zip_of_it_is_refused(tmp_path):
    path = tmp_path / "caltech-101.zip"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(SourceError, match=r"caltech-101.zip: cannot be read as zip"):
        opened(path, "caltech101")
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(SourceError, match="holds 0 files 101_ObjectCategories"):
        opened(path, "caltech101")
