"""Whether the data that a run needs can be had, asked before any process is started."""

from collections.abc import Iterator

from conf.schema import Contradiction, RunConfig, contradictions
from data.missing import missing_source


def look(config: RunConfig) -> Iterator[Contradiction]:
    """Find what contradicts itself, and a source that is neither there nor staged already."""
    yield from contradictions(config)
    if (text := missing_source(config.data, config.paths.staged)) is not None:
        yield Contradiction(("data.path",), text)
