"""Which samples each batch of multi-batch L-BFGS has, and which it shares with the next."""

from dataclasses import dataclass

from engine.batch.config import MultibatchConfig
from engine.batch.program import Span


@dataclass(frozen=True)
class Batch:
    """Samples [start, stop), counted on past the last sample of the problem; [tail, stop) shared.

    A batch of all samples shares all of them with the next one, which is the same.
    """

    start: int
    tail: int
    stop: int
    size: float  # before rounding; grows

    @property
    def full(self) -> bool:
        """Whether it has all samples."""
        return self.start == self.tail

    @property
    def head(self) -> Span:
        """What the next batch does not share."""
        return Span(self.start, self.tail)

    @property
    def shared(self) -> Span:
        """What the next batch shares."""
        return Span(self.tail, self.stop)

    def unknown(self, num_known: int) -> tuple[Span, Span]:
        """What to evaluate when the first samples are known: what only it has, and its tail.

        Of a full batch, whose tail is the whole, the second is empty.
        """
        first = self.start + num_known
        if self.full:
            return Span(first, self.stop), Span(self.stop, self.stop)
        return Span(first, self.tail), self.shared


def first_batch(config: MultibatchConfig) -> Batch:
    """The batch that starts with the problem's first sample."""
    return _batch(config, 0, float(config.batch_size))


def next_batch(config: MultibatchConfig, before: Batch) -> Batch:
    """The batch that starts with what it shares with `before`."""
    return _batch(config, before.tail % config.num_samples, before.size * config.growth)


def _batch(config: MultibatchConfig, start: int, size: float) -> Batch:
    if size >= config.num_samples:
        return Batch(start, start, start + config.num_samples, float(config.num_samples))
    stop = start + int(size)
    return Batch(start, stop - max(1, int(config.overlap * size)), stop, size)
