"""Whether the data and the GPU that a run needs are there, asked before any process starts."""

from collections.abc import Iterator

from conf.schema import Contradiction, RunConfig, contradictions
from data.missing import missing_source


def look(config: RunConfig) -> Iterator[Contradiction]:
    """Find what contradicts itself, a source that is not there nor staged, a GPU that is not."""
    yield from contradictions(config)
    if (text := missing_source(config.data, config.paths.staged)) is not None:
        yield Contradiction(("data.path",), text)
    if config.cluster.device == "cuda":
        # Not at the top: loading torch takes longer than all other checks together.
        from engine.device import NoGpuError, computing_device

        try:
            computing_device(config.cluster.device)
        except NoGpuError as error:
            yield Contradiction(("cluster.device",), f"cluster.{error}")
