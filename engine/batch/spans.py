"""Which samples each batch of multi-batch L-BFGS has, and which it shares with the next."""

from dataclasses import dataclass

from engine.batch.config import MultibatchConfig
from engine.batch.program import Span

_NOTHING = Span(0, 0)


@dataclass(frozen=True)
class Batch:
    """Three stretches of the data. A full batch has all samples, and shares them all."""

    before: Span  # shared with the batch before
    fresh: Span
    after: Span  # shared with the next batch
    size: float  # samples aimed at; grows

    @property
    def full(self) -> bool:
        """Whether it shares everything: the next batch is the same."""
        return not (self.before.length or self.fresh.length)

    @property
    def num_samples(self) -> int:
        """In all three stretches."""
        return self.before.length + self.fresh.length + self.after.length


def first_batch(config: MultibatchConfig) -> Batch:
    """The batch that starts with the problem's first sample."""
    return _batch(config, _NOTHING, float(config.batch_size))


def next_batch(config: MultibatchConfig, last: Batch) -> Batch:
    """The batch that shares the end of `last`."""
    return last if last.full else _batch(config, last.after, last.size * config.growth)


def _batch(config: MultibatchConfig, before: Span, size: float) -> Batch:
    num_samples = config.num_samples
    assert num_samples is not None
    if size >= num_samples:
        return Batch(_NOTHING, _NOTHING, Span(0, num_samples), float(num_samples))
    start = before.stop % num_samples
    # A stretch ends with the data, or where the batch would meet itself.
    end = before.start if before.stop == num_samples else num_samples
    num_new = max(1, int(size) - before.length)
    # Rather one batch of 0.5 to 1.5 times the size than a remainder of a few samples.
    stop = start + num_new if end - start >= 1.5 * num_new else end
    shared = max(1, min(int(config.overlap * size), stop - start))
    return Batch(before, Span(start, stop - shared), Span(stop - shared, stop), size)
