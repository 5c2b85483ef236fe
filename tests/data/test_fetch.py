"""Tars staged elsewhere arrive as they were, or not at all."""

import json

import fsspec
import pytest

from data.fetch import fetch_staged
from data.manifest import MANIFEST, ManifestError, _digest, read_manifest
from data.sources.source import SourceError
from data.staged_tar import DamagedTar
from data.staging import stage
from tests.data.pictures import contents, images_of, write_tree
from tests.data.staged import config_of


@pytest.fixture
def config(tmp_path):
    images = images_of()
    images["test/dog/0000.jpg"] = images["train/cat/0000.jpg"]  # listed beside the manifest
    return config_of(write_tree(tmp_path / "tree", images))


@pytest.fixture
def staged(config, tmp_path):
    return stage(config, tmp_path / "there").folder


@pytest.fixture
def url(staged):
    """The same folder in a bucket."""
    memory = fsspec.filesystem("memory")
    for path in staged.iterdir():
        memory.pipe_file(f"memory://bucket/{staged.name}/{path.name}", path.read_bytes())
    yield f"memory://bucket/{staged.name}"
    memory.store.clear()


def test_all_arrives_and_counts_as_staged(config, staged, url, tmp_path):
    folder = fetch_staged(url, tmp_path / "here")
    assert contents(folder) == contents(staged)
    result = stage(config, tmp_path / "here")
    assert (result.folder, result.tars_written) == (folder, 0)


def test_what_is_there_is_kept_and_what_is_cut_is_fetched_again(staged, url, tmp_path):
    folder = fetch_staged(url, tmp_path / "here")
    kept, cut = (folder / name for name in ("train-000000.tar", "train-000001.tar"))
    before = kept.stat().st_mtime_ns
    cut.write_bytes(cut.read_bytes()[:-512])
    fetch_staged(url, tmp_path / "here")
    assert kept.stat().st_mtime_ns == before
    assert contents(folder) == contents(staged)


def test_a_damaged_tar_is_refused_and_nothing_counts_as_staged(url, tmp_path):
    memory = fsspec.filesystem("memory")
    data = bytearray(memory.cat_file(f"{url}/train-000001.tar"))
    data[700] ^= 1
    memory.pipe_file(f"{url}/train-000001.tar", bytes(data))
    with pytest.raises(DamagedTar, match=r"train-000001.tar: .*SHA-256.*: upload it again"):
        fetch_staged(url, tmp_path / "here")
    (folder,) = (tmp_path / "here").iterdir()
    assert not (folder / MANIFEST).exists()
    assert not (folder / "train-000001.tar").exists()


def test_a_manifest_cannot_name_files_elsewhere(url, tmp_path):
    memory = fsspec.filesystem("memory")
    content = json.loads(memory.cat_file(f"{url}/{MANIFEST}"))
    content["train"][0]["file"] = "../../evil.tar"
    version = content.pop("format_version")
    del content["sha256"]
    whole = {"format_version": version, "sha256": _digest(content), **content}
    memory.pipe_file(f"{url}/{MANIFEST}", json.dumps(whole).encode())
    with pytest.raises(ManifestError, match=r"names the file '../../evil.tar'"):
        fetch_staged(url, tmp_path / "here")


def test_nothing_staged_there_is_told(tmp_path):
    with pytest.raises(SourceError, match=r"memory://none/manifest.json: does not exist"):
        fetch_staged("memory://none", tmp_path)


def test_a_folder_on_a_disk_is_fetched_too(staged, tmp_path):
    folder = fetch_staged(str(staged), tmp_path / "here")
    assert read_manifest(folder) == read_manifest(staged)
