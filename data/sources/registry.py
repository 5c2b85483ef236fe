"""From configuration to source: the one place that knows every kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from data.config import DataConfig, SourceKind
from data.sources.archive import archive_source
from data.sources.builtin import builtin_source
from data.sources.caltech import caltech_source
from data.sources.digests import digest_of
from data.sources.folder import folder_source
from data.sources.ilsvrc import ilsvrc_files, ilsvrc_source
from data.sources.imagenet21k import imagenet21k_source
from data.sources.kaggle import kaggle_source
from data.sources.listing import is_unpacked, listed_tree
from data.sources.parquet import DATA, parquet_source
from data.sources.places import inside, is_folder, names_in, normal
from data.sources.source import Source
from data.sources.voc import voc_source
from data.sources.webdataset_tars import webdataset_source

SPOOL: Final = "spool"


Opener = Callable[[DataConfig, Path], Source]


def _archive(config: DataConfig, work: Path) -> Source:
    place = source_path(config)
    folder, _, name = place.rpartition("/")
    digest = digest_of(folder, name, config.check_digests)
    return archive_source(place, work / SPOOL, config.train_split, config.test_split, digest)


def _caltech(config: DataConfig, work: Path) -> Source:
    return caltech_source(
        config.source,
        source_path(config),
        work / SPOOL,
        config.check_digests,
        (config.train_per_class, config.test_per_class),
        config.split_seed,
    )


def _kaggle(config: DataConfig, work: Path) -> Source:
    expected = "Kaggle's archive, or the folder unpacked from it"
    place, spool = source_path(config), work / SPOOL
    return kaggle_source(listed_tree(place, (), spool, config.check_digests, expected), work)


def _parquet(config: DataConfig, work: Path) -> Source:
    return parquet_source(
        source_path(config),
        work / SPOOL,
        (config.train_split, config.test_split),
        config.image_column,
        config.label_column,
    )


def _voc(config: DataConfig, work: Path) -> Source:
    expected = "a folder with the archives of PASCAL VOC, or with what they hold"
    place, spool = source_path(config), work / SPOOL
    tree = listed_tree(place, config.archives, spool, config.check_digests, expected)
    return voc_source(tree, config.train_split, config.test_split, config.task)


SOURCES: Final[dict[SourceKind, Opener]] = {
    "builtin": lambda config, work: builtin_source(config.name, work / SPOOL),
    "folder": lambda config, work: folder_source(
        source_path(config), config.train_split, config.test_split, work
    ),
    "archive": _archive,
    "ilsvrc2012": lambda config, work: ilsvrc_source(
        source_path(config), config.check_digests, work
    ),
    "kaggle": _kaggle,
    "imagenet21k": lambda config, work: imagenet21k_source(
        source_path(config), work / SPOOL, config.check_digests
    ),
    "voc": _voc,
    "caltech101": _caltech,
    "caltech256": _caltech,
    "webdataset": lambda config, work: webdataset_source(
        source_path(config),
        work / SPOOL,
        config.train_split,
        config.test_split,
        config.label_column,
    ),
    "parquet": _parquet,
}


def open_source(config: DataConfig, work_folder: Path) -> Source:
    """Read the list of samples of the configured source.

    Sources without random access leave their images in `work_folder`, which has to outlive the use
    of the samples.
    """
    return SOURCES[config.source](config, work_folder)


def source_path(config: DataConfig) -> str:
    """The absolute path or the URL of the folder or archive."""
    assert config.path is not None  # checked by DataConfig
    return normal(config.path)


def source_files(config: DataConfig) -> list[str] | None:
    """The files that are read, where their folder alone would not tell of a change; else None."""
    folder = source_path(config)
    if config.source == "ilsvrc2012":
        return [inside(folder, name) for name in ilsvrc_files(folder)]
    if config.source in ("webdataset", "parquet"):
        data = inside(folder, DATA)
        where = data if is_folder(data) else folder
        return [inside(where, name) for name in names_in(where)]
    if config.archives and not is_unpacked(folder, config.archives):
        return [inside(folder, name) for name in config.archives]
    return None


def origin(config: DataConfig) -> str:
    """How messages call the source."""
    return config.name if config.source == "builtin" else source_path(config)


def selection(config: DataConfig) -> list[object]:
    """The settings that decide which of a source's images are read, with which labels."""
    return [
        config.archives,
        config.task,
        config.train_per_class,
        config.test_per_class,
        config.split_seed,
        config.image_column,
        config.label_column,
    ]
