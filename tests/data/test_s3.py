"""s3:// against a server: archives are staged from there, staged tars read where they lie."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from data.config import InputConfig
from data.elsewhere import PIECE_BYTES
from data.fetch import fetch_staged, use_in_place
from data.manifest import MANIFEST, read_manifest
from data.minibatches import TrainingReader
from data.sources import places
from data.sources.fingerprint import fingerprint
from data.sources.source import SourceError
from data.sources.strict_tar import tar_members
from data.staging import stage
from data.test_images import TestReader
from tests.data.pictures import contents, images_of, write_archive, write_tree
from tests.data.s3_server import BUCKET
from tests.data.sources import listed, opened
from tests.data.staged import config_of
from tests.data.test_shards import as_number, write_parquet, write_webdataset

ROOT = Path(__file__).parent.parent.parent
INPUT = InputConfig(side_min=16, side_max=20, crop_size=16, cache_bytes=0)


class Server:
    """An S3 server in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.data.s3_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.variables = json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def as_user(variables):
    """Have nothing but these variables say where the server is and who asks."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        for name, value in variables.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def shared_server():
    server = Server()
    yield server
    server.end()


@pytest.fixture
def server(shared_server):
    with as_user(shared_server.variables):
        yield shared_server


@pytest.fixture
def mortal():
    """A server that the test may end."""
    server = Server()
    with as_user(server.variables):
        yield server
    server.end()


def uploaded(folder, prefix):
    """Copy a folder's files to the bucket."""
    import s3fs

    bucket = s3fs.S3FileSystem()
    url = f"s3://{BUCKET}/{prefix}/{folder.name}"
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            bucket.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())
    return url


@pytest.fixture
def staged(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of())
    return stage(config_of(tree), tmp_path / "there").folder


def minibatches(folder, epochs=2):
    reader = TrainingReader(folder, INPUT, seed=0)
    return [
        images
        for epoch in range(epochs)
        for tar, size in enumerate(reader.tar_sizes)
        for images, _ in reader.minibatches(epoch, tar, 0, size, 3)
    ]


@pytest.mark.parametrize(("name", "mode"), [("pets.tar", "w"), ("pets.tar.gz", "w:gz")])
def test_an_archive_in_s3_is_staged_as_from_a_disk(server, tmp_path, name, mode):
    folder = tmp_path / "pets"
    folder.mkdir()
    path = write_archive(folder / name, images_of(), mode)
    config = config_of(f"{uploaded(folder, tmp_path.name)}/{name}", "archive")
    remote = stage(config, tmp_path).manifest
    local = stage(config_of(path, "archive"), tmp_path).manifest
    assert [e.sha256 for e in remote.entries] == [e.sha256 for e in local.entries]
    assert remote.source == config.path
    assert stage(config, tmp_path).tars_written == 0


def test_folders_of_shards_in_s3_are_read(server, tmp_path):
    write_webdataset(tmp_path / "wds", as_number)
    write_parquet(tmp_path / "pq" / "data", [0, 1, 2])
    for folder, kind, test_split in (
        ("wds", "webdataset", "test"),
        ("pq", "parquet", "validation"),
    ):
        settings = {"test_split": test_split, "work": tmp_path / "w"}
        remote = listed(opened(uploaded(tmp_path / folder, tmp_path.name), kind, **settings))
        assert remote == listed(opened(tmp_path / folder, kind, **settings))


def test_an_archive_replaced_in_s3_is_noticed(server, tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    write_archive(folder / "pets.tar", images_of())
    config = config_of(f"{uploaded(folder, tmp_path.name)}/pets.tar", "archive")
    before = fingerprint(config)
    assert fingerprint(config) == before
    write_archive(folder / "pets.tar", images_of(num_train=5))
    uploaded(folder, tmp_path.name)
    assert fingerprint(config) != before


def test_staged_tars_come_back_from_s3_as_they_were(server, staged, tmp_path):
    folder = fetch_staged(uploaded(staged, tmp_path.name), tmp_path / "here")
    assert contents(folder) == contents(staged)


def test_training_on_tars_in_s3_reads_what_training_on_the_original_reads(server, staged, tmp_path):
    room = max(entry.num_bytes for entry in read_manifest(staged).entries)
    folder = use_in_place(uploaded(staged, tmp_path.name), tmp_path / "here", room)
    for ours, wanted in zip(minibatches(folder), minibatches(staged), strict=True):
        assert torch.equal(ours, wanted)
        assert sum(path.stat().st_size for path in folder.glob("*.tar")) <= room
    for (ours, label), (wanted, other) in zip(TestReader(folder), TestReader(staged), strict=True):
        assert (bytes(ours), label) == (bytes(wanted), other)


def fetched(*arguments):
    """What `python -m data.fetch` says in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "data.fetch", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_makes_tars_in_s3_usable_by_environment_variables_alone(
    server, staged, tmp_path
):
    done = fetched(uploaded(staged, tmp_path.name), tmp_path / "here", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'here' / staged.name}\n"


def test_the_command_says_in_one_line_that_credentials_are_refused(server, tmp_path):
    with as_user(server.variables | {"AWS_SECRET_ACCESS_KEY": "wrong"}):
        done = fetched(f"s3://{BUCKET}/none", tmp_path / "here")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"s3://{BUCKET}/none/manifest.json: access is refused: ")
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE" in line
    assert "wrong" not in line


def test_a_wrong_bucket_is_named(server, tmp_path):
    message = "s3://bukcet/.*: there is no such bucket: check its name and AWS_ENDPOINT_URL"
    with pytest.raises(SourceError, match=message):
        fetch_staged("s3://bukcet/pets", tmp_path)
    with pytest.raises(SourceError, match=message):
        opened("s3://bukcet/pets.tar", "archive", work=tmp_path / "w")


def test_a_missing_file_in_s3_is_named(server, tmp_path):
    with pytest.raises(SourceError, match=rf"data.path=s3://{BUCKET}/no.tar does not exist"):
        opened(f"s3://{BUCKET}/no.tar", "archive", work=tmp_path / "w")


@pytest.mark.parametrize(
    "variables", [{"AWS_ACCESS_KEY_ID": "someone"}, {"AWS_SECRET_ACCESS_KEY": "wrong"}]
)
def test_refused_credentials_are_told(server, tmp_path, variables):
    with (
        as_user(server.variables | variables),
        pytest.raises(
            SourceError, match=r"s3://.*: access is refused: .*: check AWS_ACCESS_KEY_ID"
        ),
    ):
        opened(f"s3://{BUCKET}/pets.tar", "archive", work=tmp_path / "w")


def test_missing_credentials_are_told(server, tmp_path):
    with (
        as_user({"AWS_ENDPOINT_URL": server.variables["AWS_ENDPOINT_URL"]}),
        pytest.raises(
            SourceError, match=r"s3://.*: access is refused: .*: check AWS_ACCESS_KEY_ID"
        ),
    ):
        opened(f"s3://{BUCKET}/pets.tar", "archive", work=tmp_path / "w")


def test_a_server_that_goes_while_an_archive_is_read_is_told(mortal, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "BLOCK_BYTES", 4096)
    folder = tmp_path / "pets"
    folder.mkdir()
    write_archive(folder / "pets.tar", images_of(num_train=50))
    url = f"{uploaded(folder, 'gone')}/pets.tar"
    members = tar_members(url)
    next(members)
    mortal.end()
    with pytest.raises(SourceError, match=rf"{url}: cannot be read: .*AWS_ENDPOINT_URL"):
        list(members)


def test_a_server_that_goes_in_the_middle_of_a_tar_leaves_no_part_of_it(
    mortal, staged, monkeypatch, tmp_path
):
    monkeypatch.setattr(places, "BLOCK_BYTES", 4096)
    url = uploaded(staged, "gone")
    original, pieces = places._RemoteFile.read, []

    def read(file, size=-1):
        if size == PIECE_BYTES:
            pieces.append(original(file, 4096))
            if len(pieces) == 2:
                mortal.end()
            return pieces[-1]
        return original(file, size)

    monkeypatch.setattr(places._RemoteFile, "read", read)
    with pytest.raises(SourceError, match=rf"{url}/\S*.tar: cannot be read: .*then try again"):
        fetch_staged(url, tmp_path / "here")
    (folder,) = (tmp_path / "here").iterdir()
    assert len(pieces) >= 2
    assert not (folder / MANIFEST).exists()
    assert not list(folder.glob("*.tar"))
    assert not list(folder.glob(".*.partial"))


def test_a_server_that_is_gone_is_told_to_whoever_trains(mortal, staged, tmp_path):
    url = uploaded(staged, "gone")
    folder = use_in_place(url, tmp_path / "here", 10**9)
    mortal.end()
    with pytest.raises(SourceError, match=rf"{url}/train-\d+.tar: cannot be read: .*try again"):
        minibatches(folder)
