"""What the tests of all kinds of sources share."""

from pathlib import Path

from data.config import DataConfig
from data.sources.registry import open_source


def opened(path, source, **settings):
    """The source of a path or URL; what it spools goes beside the path, or to the given `work`."""
    work = settings.pop("work", None) or Path(path).parent / "work"
    work.mkdir(exist_ok=True)
    settings = {"check_digests": False, "name": "test"} | settings
    return open_source(DataConfig(source=source, path=str(path), **settings), work)


def listed(source):
    """Split → name → (class name, bytes)."""
    return {
        split: {
            sample.name: (source.class_names[sample.label], sample.location.read())
            for sample in source.samples(split)
        }
        for split in ("train", "test")
    }
