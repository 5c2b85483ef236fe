"""L-BFGS on batches of a sample, each overlapping the next (Berahas, Nocedal & Takac 2016).

The gradients of two batches differ for two reasons, the step and the samples. So y is taken on
the samples that both batches have: y = g_O(w') - g_O(w). Batches may grow until they are full.
"""

from collections import Counter
from dataclasses import dataclass
from math import isfinite, nan
from typing import NamedTuple

from engine.batch.config import MultibatchConfig
from engine.batch.gram import Gram
from engine.batch.history import DIRECTION
from engine.batch.iterate import Iterate, relative_change
from engine.batch.names import START, s, slots, spare, twin, twins, y
from engine.batch.path import Scalars, walk
from engine.batch.program import Ask, Span, evaluate, run
from engine.batch.search import Measured, backtracking
from engine.batch.spans import Batch, first_batch, next_batch
from engine.batch.starting import GRAD, first_step
from engine.batch.vector import Combine, Command, MaxAbs, copy, dot

#: Gradients: of the samples shared with the next batch; of those shared with the last one, at the
#: trial point; of those that are new and not shared on.
TAIL, SHARED, FRESH = "tail0", "shared", "fresh"


@dataclass(frozen=True)
class Sampled:
    """The iterate's batch, over which its loss and gradient are, and the pairs so far."""

    batch: Batch
    tail: str  # name of the gradient over the samples that the next batch shares
    gram: Gram


class Part(NamedTuple):
    """The mean loss over some samples, and the vector that holds its gradient."""

    size: int
    loss: float
    grad: str


class SampledPath:
    """x + step_length * direction; the loss is that of the batch, the gradient of its tail."""

    def __init__(self, at: Iterate, batch: Batch, slope: float) -> None:
        self.trial = twin(at.point)
        self._point, self._batch, self._slope = at.point, batch, slope
        self.tail_loss = nan  # at the last trial point with its gradient

    def go(self, step_length: float) -> tuple[Command, ...]:
        return (Combine(self.trial, ((1.0, self._point), (step_length, DIRECTION))),)

    def evaluate(self, gradient: bool) -> Ask[float]:
        batch = self._batch
        self.tail_loss = yield from evaluate(
            self.trial, SHARED if gradient else None, _samples(batch, batch.after)
        )
        total = self.tail_loss * batch.after.length
        for span in (batch.before, batch.fresh):
            if span.length:
                total += span.length * (yield from evaluate(self.trial, None, span))
        return total / batch.num_samples

    def study(self, step_length: float) -> tuple[Command, ...]:
        return (MaxAbs(SHARED),)

    def measure(self, step_length: float, loss: float, gone: Scalars, studied: Scalars) -> Measured:
        finite = not studied or isfinite(studied[0])
        return Measured(loss if finite else nan, nan, step_length * self._slope)


class Multibatch:
    """Every batch's loss decides on the step; the next batch's gradient gives the direction."""

    memory = Sampled

    def __init__(self, config: MultibatchConfig) -> None:
        """Minimise by batches of `config`.

        Raises:
            ValueError: `config` does not say how many samples there are to draw from.
        """
        if config.num_samples is None:
            raise ValueError("num_samples is None: say how many samples the objective has")
        self.config = config

    @property
    def vectors(self) -> tuple[str, ...]:
        names = (DIRECTION, SHARED, FRESH)
        return (*twins("x", "grad", "tail"), *names, *slots(self.config.history_length))

    def start(self, counts: Counter[str]) -> Ask[tuple[Iterate, Sampled]]:
        batch = first_batch(self.config)
        loss = yield from self._complete(START, GRAD, TAIL, batch, None, nan)
        counts["gradients"] += 1
        norm, square = yield from run(MaxAbs(GRAD), dot(GRAD, GRAD))
        at = Iterate(iteration=0, point=START, grad=GRAD, loss=loss, gradient_norm=norm)
        return at, Sampled(batch, TAIL, Gram.at(square))

    def step(
        self, at: Iterate, memory: Sampled, counts: Counter[str]
    ) -> Ask[tuple[Iterate, Sampled] | None]:
        gram, batch = memory.gram, memory.batch
        proposal = yield from gram.propose(at.grad, DIRECTION)
        if not proposal.slope < 0:
            return None
        path = SampledPath(at, batch, proposal.slope)
        first = 1.0 if gram.slots else first_step(gram.square)
        search = backtracking(self.config.line_search, at.loss, first)
        landed = yield from walk(path, search, proposal.commands, counts)
        if landed is None:
            return None
        following, tail, grad = next_batch(self.config, batch), twin(memory.tail), twin(at.grad)
        loss = yield from self._complete(path.trial, grad, tail, following, batch, path.tail_loss)
        slot = spare(gram.slots)
        norm, *answers = yield from run(
            MaxAbs(grad),
            Combine(s(slot), ((landed.step_length, DIRECTION),)),
            Combine(y(slot), ((1.0, SHARED), (-1.0, memory.tail))),
            *gram.questions(grad),
        )
        learnt = gram.learn(answers, 1.0, self.config.history_length, self.config.curvature_epsilon)
        counts["skipped"] += slot not in learnt.slots
        taken = Iterate(
            iteration=at.iteration + 1,
            point=path.trial,
            grad=grad,
            loss=loss,
            gradient_norm=norm,
            step_length=landed.step_length,
            change=relative_change(at.loss, loss) if batch.full else None,
        )
        return taken, Sampled(following, tail, learnt)

    def _complete(
        self, point: str, grad: str, tail: str, batch: Batch, last: Batch | None, known: float
    ) -> Ask[float]:
        """Write the gradient over `batch`, and over what it shares on; return the loss.

        What it shares with `last` is known: `SHARED` is its gradient, `known` its loss.
        """
        if batch == last:  # full
            yield from run(copy(grad, SHARED), copy(tail, SHARED))
            return known
        parts = [Part(batch.before.length, known, SHARED)] if batch.before.length else []
        for span, name in ((batch.fresh, FRESH), (batch.after, tail)):
            if span.length:
                loss = yield from evaluate(point, name, _samples(batch, span))
                parts.append(Part(span.length, loss, name))
        terms = tuple((part.size / batch.num_samples, part.grad) for part in parts)
        yield from run(Combine(grad, terms))
        return sum(part.size * part.loss for part in parts) / batch.num_samples

    def forget(self, memory: Sampled) -> Sampled | None:
        if not memory.gram.slots:
            return None
        return Sampled(memory.batch, memory.tail, memory.gram.forget())


def _samples(batch: Batch, span: Span) -> Span | None:
    return None if batch.full else span
