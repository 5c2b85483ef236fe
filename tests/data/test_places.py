"""Sources behind URLs give what they give from a disk; what cannot be read is named."""

import json
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import _registry

from data.sources.fingerprint import MISSING, fingerprint
from data.sources.places import normal
from data.sources.source import SourceError
from data.staging import stage
from data.test_images import TestReader
from tests.data.miniature.archives import write_miniature
from tests.data.pictures import images_of, write_archive, write_tree
from tests.data.sources import listed, opened
from tests.data.staged import config_of
from tests.data.test_shards import as_number, write_parquet, write_webdataset

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def bucket():
    """Copies a folder to memory:// and gives its URL."""
    memory = fsspec.filesystem("memory")

    def copied(folder):
        url = f"memory://{folder.name}"
        for path in folder.rglob("*"):
            if path.is_file():
                memory.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())
        return url

    yield copied
    memory.store.clear()


@pytest.mark.parametrize(("name", "mode"), [("pets.tar", "w"), ("pets.tar.gz", "w:gz")])
def test_an_archive_in_a_bucket_is_staged_as_from_a_disk(tmp_path, bucket, name, mode):
    folder = tmp_path / "pets"
    folder.mkdir()
    path = write_archive(folder / name, images_of(), mode)
    remote = stage(config_of(f"{bucket(folder)}/{name}", "archive"), tmp_path).manifest
    local = stage(config_of(path, "archive"), tmp_path).manifest
    assert [e.num_samples for e in remote.entries] == [e.num_samples for e in local.entries]
    assert [e.sha256 for e in remote.entries] == [e.sha256 for e in local.entries]
    assert remote.source == f"memory://pets/{name}"


def test_folders_of_archives_in_a_bucket_are_read(tmp_path, bucket):
    mini = write_miniature(tmp_path / "mini", num_train=1)
    source = opened(bucket(mini.folder), "ilsvrc2012", check_digests=True, work=tmp_path / "w")
    found = listed(source)
    assert found["train"] == {f"{n}.JPEG": (p.wnid, p.data) for n, p in mini.train.items()}
    assert found["test"] == {f"{n}.JPEG": (p.wnid, p.data) for n, p in mini.val.items()}


def test_shards_in_a_bucket_are_read(tmp_path, bucket):
    write_webdataset(tmp_path / "wds", as_number)
    write_parquet(tmp_path / "pq" / "data", [0, 1, 2])
    for folder, kind, test_split in (
        ("wds", "webdataset", "test"),
        ("pq", "parquet", "validation"),
    ):
        settings = {"test_split": test_split, "work": tmp_path / "w"}
        remote = listed(opened(bucket(tmp_path / folder), kind, **settings))
        assert remote == listed(opened(tmp_path / folder, kind, **settings))


def test_a_file_url_is_a_path(tmp_path):
    path = write_archive(tmp_path / "pets.tar", images_of())
    assert listed(opened(f"file://{path}", "archive", work=tmp_path / "w")) == listed(
        opened(path, "archive", work=tmp_path / "w")
    )


def test_a_replaced_remote_archive_is_noticed(tmp_path, bucket):
    folder = tmp_path / "pets"
    folder.mkdir()
    write_archive(folder / "pets.tar", images_of())
    config = config_of(f"{bucket(folder)}/pets.tar", "archive")
    before = fingerprint(config)
    assert fingerprint(config) == before
    bucket(folder)
    assert fingerprint(config) != before
    fsspec.filesystem("memory").rm("memory://pets/pets.tar")
    assert fingerprint(config) == MISSING


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/pets.tar", "protocol http:// is not read: want one of"),
        ("simplecache::s3://b/pets.tar", r"protocol simplecache::s3:// is not read|protocol"),
        ("ftp://example.org/pets.tar", "protocol ftp:// is not read"),
        ("https://me:secret@example.org/pets.tar", r"https://...@example.org: holds credentials"),
    ],
)
def test_other_protocols_and_credentials_are_refused(url, message):
    with pytest.raises(SourceError, match=message) as caught:
        normal(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("url", "driver"), [("s3://b/p.tar", "s3fs"), ("gs://b/p.tar", "gcsfs")])
def test_a_driver_that_is_not_installed_is_named(monkeypatch, tmp_path, url, driver):
    monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.delitem(_registry, url[:2], raising=False)
    with pytest.raises(SourceError, match=rf"{url}: reading .* needs the package {driver}"):
        opened(url, "archive", work=tmp_path / "w")


def test_a_missing_remote_file_is_named(tmp_path, bucket):
    with pytest.raises(SourceError, match=r"data.path=memory://no/pets.tar does not exist"):
        opened("memory://no/pets.tar", "archive", work=tmp_path / "w")
    with pytest.raises(SourceError, match=r"data.path=memory://no is no folder"):
        opened("memory://no", "ilsvrc2012", work=tmp_path / "w")


def served(folder, *arguments):
    """What a child says that serves the folder by HTTPS and reads from there."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.https_server", folder, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_archive_behind_https_is_read_by_ranges(tmp_path):
    path = write_archive(tmp_path / "pets.tar", images_of())
    told = json.loads(served(tmp_path))
    local = listed(opened(path, "archive"))
    assert told["names"] == sorted(name for split in local.values() for name in split)
    assert told["same"]
    assert told["num_ranges"] >= len(told["names"])


def test_a_server_with_an_unknown_certificate_is_not_believed(tmp_path):
    write_archive(tmp_path / "pets.tar", images_of())
    assert "CERTIFICATE_VERIFY_FAILED" in served(tmp_path, "untrusted")


def test_staged_tars_behind_https_are_read_where_they_lie(tmp_path):
    folder = stage(config_of(write_tree(tmp_path / "tree", images_of())), tmp_path).folder
    told = json.loads(served(tmp_path, folder.name))
    readers = (TestReader(folder, split) for split in ("train", "test"))
    assert told == {"labels": [label for r in readers for _, label in r], "num_tars": 1}
