"""Telling cheaply that a source is needed and not there: nothing of it is read."""

from pathlib import Path

from data.config import DataConfig
from data.sources.places import is_remote


def missing_source(config: DataConfig, root: Path) -> str | None:
    """What staging below `root` would say of a source on this machine that is not there.

    None where the data is staged already, and of URLs, which may take long to answer.
    """
    if config.path is None or is_remote(config.path):
        return None
    # Only now: with all kinds of sources come numpy and decoders, a quarter of a second.
    from data.manifest import MANIFEST
    from data.sources.errors import SourceError
    from data.sources.fingerprint import MISSING, fingerprint
    from data.sources.registry import open_source
    from data.staging import staged_folder
    from data.tars import WORK

    folder = staged_folder(root, config)
    if (folder / MANIFEST).exists() or fingerprint(config) != MISSING:
        return None
    try:
        open_source(config, folder / WORK)
    except SourceError as error:
        return str(error)
    return None
