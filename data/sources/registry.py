"""From configuration to source: the one place that knows every kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from data.config import DataConfig
from data.sources.archive import archive_source
from data.sources.builtin import builtin_source
from data.sources.folder import folder_source
from data.sources.source import Source

SPOOL: Final = "spool"

SOURCES: Final[dict[str, Callable[[DataConfig, Path], Source]]] = {
    "builtin": lambda config, work: builtin_source(config.name, work / SPOOL),
    "folder": lambda config, work: folder_source(
        source_path(config), config.train_split, config.test_split
    ),
    "archive": lambda config, work: archive_source(
        source_path(config), work / SPOOL, config.train_split, config.test_split
    ),
}


def open_source(config: DataConfig, work_folder: Path) -> Source:
    """Read the list of samples of the configured source.

    Sources without random access leave their images in `work_folder`, which has to outlive the use
    of the samples.
    """
    return SOURCES[config.source](config, work_folder)


def source_path(config: DataConfig) -> Path:
    """The absolute path of the folder or archive, so that the working folder does not matter."""
    assert config.path is not None  # checked by DataConfig
    return Path(config.path).expanduser().resolve()


def origin(config: DataConfig) -> str:
    """How messages call the source."""
    return config.name if config.source == "builtin" else str(source_path(config))
