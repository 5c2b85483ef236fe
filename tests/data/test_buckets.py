"""s3:// and gs:// against servers: archives staged from there, staged tars read where they lie."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import fsspec
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


class Kind(NamedTuple):
    """A store: the module of its server here, and what else hides the user's own settings."""

    protocol: str
    module: str
    prefix: str  # of its environment variables
    variables: dict[str, str]


S3 = Kind(
    "s3",
    "tests.data.s3_server",
    "AWS_",
    {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    },
)
GS = Kind(
    "gs",
    "tests.data.gs_server",
    "GOOGLE_",
    {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": os.devnull},
)
only_s3 = pytest.mark.parametrize("shared_server", [S3], indirect=True, ids=["s3"])
only_gs = pytest.mark.parametrize("shared_server", [GS], indirect=True, ids=["gs"])


class Server:
    """A store's server in a process of its own."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.process = subprocess.Popen(
            [sys.executable, "-m", kind.module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # of clients that need only the beginning of an answer
        )
        self.variables = json.loads(self.process.stdout.readline())
        self.bucket = f"{kind.protocol}://{BUCKET}"

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy a folder's files to the bucket; return its URL."""
        files = fsspec.filesystem(self.kind.protocol)
        url = f"{self.bucket}/{prefix}/{folder.name}"
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())
        return url

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def as_user(kind, variables):
    """Have nothing but these variables say where the server is and who asks."""
    driver = fsspec.get_filesystem_class(kind.protocol)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(kind.prefix)]:
            patch.delenv(name)
        for name, value in (kind.variables | variables).items():
            patch.setenv(name, value)
        if kind is GS:  # whose retries have no setting: half a minute
            patch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=_at_once))
        driver.clear_instance_cache()
        yield
        driver.clear_instance_cache()


async def _at_once(_: float) -> None:
    pass


@pytest.fixture(scope="module", params=[S3, GS], ids=["s3", "gs"])
def shared_server(request):
    server = Server(request.param)
    yield server
    server.end()


@pytest.fixture
def server(shared_server):
    with as_user(shared_server.kind, shared_server.variables):
        yield shared_server


@pytest.fixture(params=[S3, GS], ids=["s3", "gs"])
def mortal(request):
    """A server that the test may end."""
    server = Server(request.param)
    with as_user(server.kind, server.variables):
        yield server
    server.end()


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
def test_an_archive_in_a_bucket_is_staged_as_from_a_disk(server, tmp_path, name, mode):
    folder = tmp_path / "pets"
    folder.mkdir()
    path = write_archive(folder / name, images_of(), mode)
    config = config_of(f"{server.upload(folder, tmp_path.name)}/{name}", "archive")
    remote = stage(config, tmp_path).manifest
    local = stage(config_of(path, "archive"), tmp_path).manifest
    assert [e.sha256 for e in remote.entries] == [e.sha256 for e in local.entries]
    assert remote.source == config.path
    assert stage(config, tmp_path).tars_written == 0


def test_folders_of_shards_in_a_bucket_are_read(server, tmp_path):
    write_webdataset(tmp_path / "wds", as_number)
    write_parquet(tmp_path / "pq" / "data", [0, 1, 2])
    for folder, kind, test_split in (
        ("wds", "webdataset", "test"),
        ("pq", "parquet", "validation"),
    ):
        settings = {"test_split": test_split, "work": tmp_path / "w"}
        remote = listed(opened(server.upload(tmp_path / folder, tmp_path.name), kind, **settings))
        assert remote == listed(opened(tmp_path / folder, kind, **settings))


def test_an_archive_replaced_in_a_bucket_is_noticed(server, tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    write_archive(folder / "pets.tar", images_of())
    config = config_of(f"{server.upload(folder, tmp_path.name)}/pets.tar", "archive")
    before = fingerprint(config)
    assert fingerprint(config) == before
    write_archive(folder / "pets.tar", images_of(num_train=5))
    server.upload(folder, tmp_path.name)
    assert fingerprint(config) != before


def test_staged_tars_come_back_from_a_bucket_as_they_were(server, staged, tmp_path):
    folder = fetch_staged(server.upload(staged, tmp_path.name), tmp_path / "here")
    assert contents(folder) == contents(staged)


def test_training_on_tars_in_a_bucket_reads_what_training_on_the_original_reads(
    server, staged, tmp_path
):
    room = max(entry.num_bytes for entry in read_manifest(staged).entries)
    folder = use_in_place(server.upload(staged, tmp_path.name), tmp_path / "here", room)
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


def test_the_command_makes_tars_in_a_bucket_usable_by_environment_variables_alone(
    server, staged, tmp_path
):
    done = fetched(server.upload(staged, tmp_path.name), tmp_path / "here", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'here' / staged.name}\n"


@only_s3
def test_the_command_says_in_one_line_that_credentials_are_refused(server, tmp_path):
    with as_user(S3, server.variables | {"AWS_SECRET_ACCESS_KEY": "wrong"}):
        done = fetched(f"{server.bucket}/none", tmp_path / "here")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{server.bucket}/none/manifest.json: access is refused: ")
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE" in line
    assert "wrong" not in line


@only_s3
def test_a_wrong_bucket_is_named(server, tmp_path):
    message = "s3://bukcet/.*: there is no such bucket: check its name and AWS_ENDPOINT_URL"
    with pytest.raises(SourceError, match=message):
        fetch_staged("s3://bukcet/pets", tmp_path)
    with pytest.raises(SourceError, match=message):
        opened("s3://bukcet/pets.tar", "archive", work=tmp_path / "w")


@only_gs
def test_a_wrong_bucket_is_like_a_missing_file(server, tmp_path):
    with pytest.raises(SourceError, match=r"gs://bukcet/.*: does not exist"):
        fetch_staged("gs://bukcet/pets", tmp_path)
    with pytest.raises(SourceError, match=r"data.path=gs://bukcet/pets.tar does not exist"):
        opened("gs://bukcet/pets.tar", "archive", work=tmp_path / "w")


def test_a_missing_file_in_a_bucket_is_named(server, tmp_path):
    with pytest.raises(SourceError, match=rf"data.path={server.bucket}/no.tar does not exist"):
        opened(f"{server.bucket}/no.tar", "archive", work=tmp_path / "w")


@only_s3
@pytest.mark.parametrize(
    "variables", [{"AWS_ACCESS_KEY_ID": "someone"}, {"AWS_SECRET_ACCESS_KEY": "wrong"}]
)
def test_refused_credentials_are_told(server, tmp_path, variables):
    with (
        as_user(S3, server.variables | variables),
        pytest.raises(
            SourceError, match=r"s3://.*: access is refused: .*: check AWS_ACCESS_KEY_ID"
        ),
    ):
        opened(f"{server.bucket}/pets.tar", "archive", work=tmp_path / "w")


@only_s3
def test_missing_credentials_are_told(server, tmp_path):
    with (
        as_user(S3, {"AWS_ENDPOINT_URL": server.variables["AWS_ENDPOINT_URL"]}),
        pytest.raises(
            SourceError, match=r"s3://.*: access is refused: .*: check AWS_ACCESS_KEY_ID"
        ),
    ):
        opened(f"{server.bucket}/pets.tar", "archive", work=tmp_path / "w")


def test_a_server_that_goes_while_an_archive_is_read_is_told(mortal, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "BLOCK_BYTES", 4096)
    folder = tmp_path / "pets"
    folder.mkdir()
    write_archive(folder / "pets.tar", images_of(num_train=50))
    url = f"{mortal.upload(folder, 'gone')}/pets.tar"
    members = tar_members(url)
    next(members)
    mortal.end()
    with pytest.raises(SourceError, match=rf"{url}: cannot be read: .*check the connection"):
        list(members)


def test_a_server_that_goes_in_the_middle_of_a_tar_leaves_no_part_of_it(
    mortal, staged, monkeypatch, tmp_path
):
    monkeypatch.setattr(places, "BLOCK_BYTES", 4096)
    url = mortal.upload(staged, "gone")
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
    url = mortal.upload(staged, "gone")
    folder = use_in_place(url, tmp_path / "here", 10**9)
    mortal.end()
    with pytest.raises(SourceError, match=rf"{url}/train-\d+.tar: cannot be read: .*try again"):
        minibatches(folder)
