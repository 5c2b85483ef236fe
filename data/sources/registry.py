"""From configuration to source: the one place that knows every kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from data.config import DataConfig
from data.sources.archive import archive_source
from data.sources.builtin import builtin_source
from data.sources.digests import digest_of
from data.sources.folder import folder_source
from data.sources.ilsvrc import ilsvrc_files, ilsvrc_source
from data.sources.places import inside, normal
from data.sources.source import Source

SPOOL: Final = "spool"


def _archive(config: DataConfig, work: Path) -> Source:
    place = source_path(config)
    folder, _, name = place.rpartition("/")
    digest = digest_of(folder, name, config.check_digests)
    return archive_source(place, work / SPOOL, config.train_split, config.test_split, digest)


SOURCES: Final[dict[str, Callable[[DataConfig, Path], Source]]] = {
    "builtin": lambda config, work: builtin_source(config.name, work / SPOOL),
    "folder": lambda config, work: folder_source(
        source_path(config), config.train_split, config.test_split
    ),
    "archive": _archive,
    "ilsvrc2012": lambda config, work: ilsvrc_source(source_path(config), config.check_digests),
}
# Of the sources whose path is a folder: which of its files are read.
FILES: Final[dict[str, Callable[[DataConfig], list[str]]]] = {
    "ilsvrc2012": lambda config: ilsvrc_files(source_path(config)),
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
    """The files that are read, where they are told apart from their folder; else None."""
    if config.source not in FILES:
        return None
    return [inside(source_path(config), name) for name in FILES[config.source](config)]


def origin(config: DataConfig) -> str:
    """How messages call the source."""
    return config.name if config.source == "builtin" else source_path(config)
