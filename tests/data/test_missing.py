"""A source that is needed and not there is told before anything of it is read."""

import pytest

from data.config import DataConfig
from data.missing import missing_source
from data.staging import stage
from tests.data.pictures import images_of, write_archive, write_tree
from tests.data.staged import config_of


def of(source, path, **settings):
    return DataConfig(name="x", source=source, path=str(path), **settings)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("folder", "does not exist: expected a folder with train/CLASS/IMAGE"),
        ("archive", "does not exist"),
        ("ilsvrc2012", "is no folder: expected one with ILSVRC2012_img_train.tar"),
        ("kaggle", "does not exist: expected Kaggle's archive"),
        ("imagenet21k", "does not exist"),
        ("voc", "does not exist"),
        ("caltech101", "does not exist"),
        ("webdataset", "no"),
        ("parquet", "no"),
    ],
)
def test_every_kind_says_what_it_expects(tmp_path, source, text):
    told = missing_source(of(source, tmp_path / "nowhere"), tmp_path / "staged")
    assert str(tmp_path / "nowhere") in told
    assert text in told
    assert not list(tmp_path.iterdir())


def test_archives_that_are_lacking_are_named(tmp_path):
    (tmp_path / "one.tar").touch()
    config = of("voc", tmp_path, archives=("one.tar", "other.tar"))
    assert missing_source(config, tmp_path).startswith(f"{tmp_path}: lacks other.tar")
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    told = missing_source(of("ilsvrc2012", tmp_path), tmp_path)
    assert "lacks ILSVRC2012_img_train.tar, ILSVRC2012_devkit_t12.tar.gz" in told


def test_nothing_is_said_of_what_is_there_or_built_in_or_behind_a_url(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of())
    archive = write_archive(tmp_path / "pets.tar", images_of())
    assert missing_source(of("folder", tree), tmp_path) is None
    assert missing_source(of("archive", archive), tmp_path) is None
    assert missing_source(of("webdataset", "s3://nowhere/at/all"), tmp_path) is None
    assert missing_source(DataConfig(name="digits", source="builtin"), tmp_path) is None


def test_staged_data_needs_no_source(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of())
    config = config_of(tree)
    stage(config, tmp_path / "staged")
    tree.rename(tmp_path / "gone")
    assert missing_source(config, tmp_path / "staged") is None
    assert "does not exist" in missing_source(config, tmp_path / "elsewhere")
