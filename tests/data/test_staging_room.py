"""Staging that cannot go on: what is missing, what lacks room, what need not be read twice."""

import errno
import gzip
import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest

import data.direct_file
import data.sources.parquet
import data.sources.strict_tar
import data.staging
from data.listing import LISTING
from data.sources.registry import SOURCES, SPOOL, open_source
from data.sources.source import SourceError, Spool
from data.sources.table import TableWriter
from data.space import NotEnoughSpace, require_space
from data.staging import stage, staged_folder
from data.tars import WORK
from tests.data.miniature.archives import tarred
from tests.data.pictures import contents, images_of, write_archive, write_tree
from tests.data.staged import config_of
from tests.data.test_caltech import FILES_101, NUMBERS
from tests.data.test_shards import as_number, write_parquet, write_webdataset


@pytest.mark.parametrize("source", [kind for kind in SOURCES if kind != "builtin"])
def test_a_source_that_is_not_there_leaves_nothing_behind(tmp_path, source):
    config = config_of(tmp_path / "nowhere", source)
    with pytest.raises(
        SourceError, match=r"data.path=.*nowhere (does not exist|is no folder): expected"
    ):
        stage(config, tmp_path / "staged")
    assert not (tmp_path / "staged").exists()


def test_too_little_room_is_told_before_the_first_tar(tmp_path, monkeypatch):
    config = config_of(write_tree(tmp_path / "tree", images_of()))
    needed = sum(len(data) for data in images_of().values())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))

    def must_not_run(work, plans):
        raise AssertionError("no tar was to be written")

    with pytest.raises(NotEnoughSpace, match=rf"{tmp_path}.*needs \d+ bytes .* {needed} are free"):
        stage(config, tmp_path, must_not_run)
    monkeypatch.undo()
    assert stage(config, tmp_path).tars_kept == 0


def test_the_room_asked_for_is_enough_and_not_far_too_much(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(data.staging, "require_space", lambda _, num: asked.append(num))
    config = config_of(write_tree(tmp_path / "tree", images_of()))
    manifest = stage(config, tmp_path).manifest
    written = sum(entry.num_bytes for entry in manifest.entries)
    assert written - 10240 * len(manifest.entries) <= asked[0] <= 2 * written


def test_enough_room_passes(tmp_path):
    require_space(tmp_path, 1)


def test_a_disk_that_fills_up_at_any_write_leaves_no_torn_tar_and_a_rerun_completes(
    tmp_path, monkeypatch
):
    config = config_of(write_tree(tmp_path / "tree", images_of(num_train=5, num_test=1)))
    write = os.write
    left = num_writes = 10**6

    def fills_up(descriptor, chunk):
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, chunk)

    monkeypatch.setattr(data.direct_file, "BUFFER_BYTES", data.direct_file.DISK_BLOCK_BYTES)
    monkeypatch.setattr(data.direct_file.os, "write", fills_up)
    reference = contents(stage(config, tmp_path / "reference").folder)
    num_writes -= left
    assert num_writes > 10
    for step in range(1, num_writes + 1):
        left, root = step, tmp_path / f"full-{step}"
        with pytest.raises(OSError, match="No space left") as caught:
            stage(config, root)
        assert f"while writing {root}" in caught.value.__notes__[0]
        folder = staged_folder(root, config)
        for tar in folder.glob("*.tar"):
            assert tar.read_bytes() == reference[tar.name]
        assert not list(folder.glob(".*.partial"))
        assert contents(stage(config, root).folder) == reference


@pytest.fixture
def killed(tmp_path):
    """A compressed archive whose staging was interrupted after two tars."""
    archive = write_archive(tmp_path / "pets.tar.gz", images_of(), "w:gz")
    config = config_of(archive, "archive")

    def interrupted(work, plans):
        for plan in plans[:2]:
            yield work(plan)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(config, tmp_path / "staged", interrupted)
    return config, tmp_path / "staged"


def no_second_reading(monkeypatch):
    def append(self, data):
        raise AssertionError("the archive was unpacked again")

    monkeypatch.setattr(Spool, "append", append)


def test_a_compressed_archive_is_unpacked_once_whatever_interrupts_staging(
    killed, monkeypatch, tmp_path
):
    config, root = killed
    reference = contents(stage(config, tmp_path / "reference").folder)
    no_second_reading(monkeypatch)
    result = stage(config, root)
    assert result.tars_kept == 2
    assert contents(result.folder) == reference


@pytest.mark.parametrize("damage", [SPOOL, LISTING, "train.rows", "test.text"])
def test_a_damaged_spool_or_listing_is_made_again(killed, damage, tmp_path):
    config, root = killed
    path = staged_folder(root, config) / WORK / damage
    path.write_bytes(path.read_bytes()[:-1])
    reference = contents(stage(config, tmp_path / "reference").folder)
    assert contents(stage(config, root).folder) == reference


def test_an_archive_that_changed_is_unpacked_again(killed, tmp_path):
    config, root = killed
    write_archive(tmp_path / "pets.tar.gz", images_of(num_train=11), "w:gz")
    assert sum(entry.num_samples for entry in stage(config, root).manifest.train) == 22


def compressed_archive(folder):
    return config_of(write_archive(folder / "pets.tar.gz", images_of(), "w:gz"), "archive")


def compressed_webdataset(folder):
    write_webdataset(folder / "wds", as_number, ["train-0.tar.gz", "test-0.tar.gz"])
    return config_of(folder / "wds", "webdataset")


def parquet(folder):
    write_parquet(folder / "hf", [0, 1, 2])
    return config_of(folder / "hf", "parquet", test_split="validation")


def zipped_caltech(folder):
    path = folder / "caltech-101.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("101_ObjectCategories.tar.gz", gzip.compress(tarred(FILES_101)))
    return config_of(path, "caltech101", check_digests=False, **NUMBERS)


@pytest.mark.parametrize(
    "kind", [compressed_archive, compressed_webdataset, parquet, zipped_caltech]
)
@pytest.mark.parametrize("buffered", [True, False])
def test_a_disk_that_fills_up_while_an_archive_is_unpacked_is_told_as_such(
    tmp_path, monkeypatch, kind, buffered
):
    config, work = kind(tmp_path), tmp_path / "work"
    work.mkdir()
    (work / SPOOL).symlink_to("/dev/full")
    if not buffered:
        opens = Path.open
        monkeypatch.setattr(Path, "open", lambda path, mode: opens(path, mode, buffering=0))
    with pytest.raises(NotEnoughSpace, match=rf"^{work}/{SPOOL}: its disk is full, .*paths.staged"):
        open_source(config, work)


def test_a_disk_that_is_full_before_the_first_tar_is_left_as_it_was(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TableWriter, "append", full)
    config = config_of(write_tree(tmp_path / "tree", images_of()))
    with pytest.raises(NotEnoughSpace, match="its disk is full, while the list of images is"):
        stage(config, tmp_path / "staged")
    assert not list((tmp_path / "staged").glob("*-*"))


class FailingFile(io.FileIO):
    """Can be read once."""

    num_reads = 0

    def read(self, size=-1):
        self.num_reads += 1
        if self.num_reads > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize("kind", [compressed_archive, compressed_webdataset, parquet])
def test_a_disk_that_cannot_be_read_is_not_taken_for_a_damaged_archive(tmp_path, monkeypatch, kind):
    config = kind(tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(data.sources.strict_tar, "open_file", FailingFile)
    monkeypatch.setattr(data.sources.parquet, "open_file", FailingFile)
    with pytest.raises(SourceError, match=rf"^{tmp_path}.*: cannot be read: Input/output error$"):
        open_source(config, tmp_path / "work")
