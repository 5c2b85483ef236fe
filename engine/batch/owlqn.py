"""Orthant-wise L-BFGS for an l1 term (Andrew & Gao 2007, "Scalable training of l1-...")."""

from collections import Counter
from dataclasses import dataclass
from math import isfinite, nan

from engine.batch.config import OwlqnConfig
from engine.batch.gram import Gram
from engine.batch.history import DIRECTION
from engine.batch.iterate import Iterate, relative_change
from engine.batch.names import START, s, slots, spare, twin, twins, y
from engine.batch.path import Scalars, walk
from engine.batch.program import Ask, evaluate, run
from engine.batch.search import Measured, backtracking
from engine.batch.starting import GRAD, first_step
from engine.batch.vector import (
    Align,
    Combine,
    Command,
    KeepSigns,
    MaxAbs,
    Orthant,
    PseudoGradient,
    SumAbs,
    dot,
)

PSEUDO = "pseudo0"
UNALIGNED, UNPROJECTED, ORTHANT = "unaligned", "unprojected", "orthant"


@dataclass(frozen=True)
class Curvature:
    """Pairs of the smooth part; their products are taken with the pseudo-gradient."""

    gram: Gram
    pseudo: str


class OrthantPath:
    """Points x + step_length * direction, set to 0 where they leave the orthant of x."""

    def __init__(self, at: Iterate, memory: Curvature, l1: float) -> None:
        self.trial, self.grad, self.pseudo = twin(at.point), twin(at.grad), twin(memory.pseudo)
        self._at, self._memory, self._l1 = at, memory, l1
        self._slot = spare(memory.gram.slots)

    def go(self, step_length: float) -> tuple[Command, ...]:
        point = self._at.point
        return (
            Combine(UNPROJECTED, ((1.0, point), (step_length, DIRECTION))),
            KeepSigns(self.trial, UNPROJECTED, ORTHANT),
            Combine(s(self._slot), ((1.0, self.trial), (-1.0, point))),
            dot(self._memory.pseudo, s(self._slot)),
            SumAbs(self.trial),
        )

    def evaluate(self, gradient: bool) -> Ask[float]:
        return evaluate(self.trial, self.grad if gradient else None)

    def study(self, step_length: float) -> tuple[Command, ...]:
        return (
            PseudoGradient(self.pseudo, self.trial, self.grad, self._l1),
            MaxAbs(self.pseudo),
            MaxAbs(self.grad),
            Combine(y(self._slot), ((1.0, self.grad), (-1.0, self._at.grad))),
            *self._memory.gram.questions(self.pseudo),
        )

    def measure(self, step_length: float, loss: float, gone: Scalars, studied: Scalars) -> Measured:
        promised, sum_abs = gone
        finite = not studied or isfinite(studied[1])
        return Measured(loss + self._l1 * sum_abs if finite else nan, nan, promised)


class Owlqn:
    """OWL-QN with the pairs' inner products in one round trip, and backtracking."""

    memory = Curvature

    def __init__(self, config: OwlqnConfig) -> None:
        self.config = config

    @property
    def vectors(self) -> tuple[str, ...]:
        others = (DIRECTION, UNALIGNED, UNPROJECTED, ORTHANT)
        return (*twins("x", "grad", "pseudo"), *others, *slots(self.config.history_length))

    def start(self, counts: Counter[str]) -> Ask[tuple[Iterate, Curvature]]:
        loss = yield from evaluate(START, GRAD)
        counts["gradients"] += 1
        norm, square, sum_abs = yield from run(
            PseudoGradient(PSEUDO, START, GRAD, self.config.l1),
            MaxAbs(PSEUDO),
            dot(PSEUDO, PSEUDO),
            SumAbs(START),
        )
        loss += self.config.l1 * sum_abs
        at = Iterate(iteration=0, point=START, grad=GRAD, loss=loss, gradient_norm=norm)
        return at, Curvature(Gram.at(square), PSEUDO)

    def step(
        self, at: Iterate, memory: Curvature, counts: Counter[str]
    ) -> Ask[tuple[Iterate, Curvature] | None]:
        slope = yield from self._aim(at, memory)
        if not slope < 0:
            return None
        gram, path = memory.gram, OrthantPath(at, memory, self.config.l1)
        first = 1.0 if gram.slots else first_step(gram.square)
        search = backtracking(self.config.line_search, at.loss, first)
        landed = yield from walk(path, search, (), counts)
        if landed is None:
            return None
        norm, _, *answers = landed.studied
        learnt = gram.learn(answers, 1.0, self.config.history_length, self.config.curvature_epsilon)
        counts["skipped"] += spare(gram.slots) not in learnt.slots
        taken = Iterate(
            iteration=at.iteration + 1,
            point=path.trial,
            grad=path.grad,
            loss=landed.loss,
            gradient_norm=norm,
            step_length=landed.step_length,
            change=relative_change(at.loss, landed.loss),
        )
        return taken, Curvature(learnt, path.pseudo)

    def _aim(self, at: Iterate, memory: Curvature) -> Ask[float]:
        """Write the direction and the orthant; return the slope."""
        proposal = yield from memory.gram.propose(memory.pseudo, UNALIGNED)
        (slope,) = yield from run(
            *proposal.commands,
            Align(DIRECTION, UNALIGNED, at.point, memory.pseudo),
            Orthant(ORTHANT, at.point, memory.pseudo),
            dot(memory.pseudo, DIRECTION),
        )
        return slope

    def forget(self, memory: Curvature) -> Curvature | None:
        if not memory.gram.slots:
            return None
        return Curvature(memory.gram.forget(), memory.pseudo)
