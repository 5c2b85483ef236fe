"""ImageNet-21k: a tar, or tar.gz, of class tars, read in one pass."""

import gzip

import pytest

from data.sources.source import SourceError
from tests.data.miniature.archives import tarred
from tests.data.sources import listed, opened

CLASSES = ("n00004475", "n00005787", "n15300051")
IMAGES = {
    wnid: {f"{wnid}_{7 * i}.JPEG": f"{wnid} {i}".encode() for i in range(60)} for wnid in CLASSES
}


def whole(top=""):
    return tarred({f"{top}{wnid}.tar": tarred(files) for wnid, files in IMAGES.items()})


@pytest.mark.parametrize("name", ["fall11_whole.tar", "winter21_whole.tar.gz"])
def test_every_image_is_listed_with_its_class(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(whole() if name.endswith("tar") else gzip.compress(whole("winter21_whole/")))
    source = opened(path, "imagenet21k")
    assert source.class_names == CLASSES
    found = listed(source)
    expected = {n: (wnid, d) for wnid, files in IMAGES.items() for n, d in files.items()}
    assert {**found["train"], **found["test"]} == expected
    assert len(found["train"]) + len(found["test"]) == len(expected)
    assert 1 <= len(found["test"]) <= 20


def test_both_editions_divide_alike(tmp_path):
    (tmp_path / "fall11_whole.tar").write_bytes(whole())
    (tmp_path / "w.tar.gz").write_bytes(gzip.compress(whole("winter21_whole/")))
    assert listed(opened(tmp_path / "fall11_whole.tar", "imagenet21k")) == listed(
        opened(tmp_path / "w.tar.gz", "imagenet21k")
    )


def test_what_is_no_image_of_a_class_is_named(tmp_path):
    path = tmp_path / "fall11_whole.tar"
    path.write_bytes(tarred({"n00004475.tar": tarred({"readme.txt": b""})}))
    with pytest.raises(SourceError, match=r"member 'n00004475.tar/readme.txt' at offset 1024"):
        opened(path, "imagenet21k")
    path.write_bytes(gzip.compress(whole())[:-9])
    with pytest.raises(SourceError, match=r"fall11_whole.tar: cannot be read"):
        opened(path, "imagenet21k")
