"""Limited-memory BFGS (Nocedal & Wright 2006, algorithm 7.5)."""

from collections import Counter
from typing import Generic, TypeVar

from engine.batch.config import LbfgsConfig
from engine.batch.history import History
from engine.batch.iterate import Iterate
from engine.batch.names import s, slots, spare, twin, twins, y
from engine.batch.path import StraightPath, walk
from engine.batch.program import Ask
from engine.batch.search import start_search
from engine.batch.starting import first_step, start_smooth
from engine.batch.two_loop import SCRATCH
from engine.batch.vector import Combine

H = TypeVar("H", bound=History)


class Lbfgs(Generic[H]):
    """L-BFGS with either form of history, `engine.batch.gram` or `engine.batch.two_loop`."""

    def __init__(self, config: LbfgsConfig, form: type[H]) -> None:
        self.config, self.memory = config, form

    @property
    def vectors(self) -> tuple[str, ...]:
        scratch = () if self.config.form == "gram" else (SCRATCH, twin(SCRATCH))
        return (*twins("x", "grad"), *scratch, *slots(self.config.history_length))

    def start(self, counts: Counter[str]) -> Ask[tuple[Iterate, H]]:
        at, square = yield from start_smooth(counts)
        return at, self.memory.at(square)

    def step(self, at: Iterate, memory: H, counts: Counter[str]) -> Ask[tuple[Iterate, H] | None]:
        slot, grad = spare(memory.slots), twin(at.grad)
        # The direction is written where the next pair's s will be, which is as many times longer
        # as the step turns out to be.
        direction = s(slot)
        proposal = yield from memory.propose(at.grad, direction)
        if not proposal.slope < 0:
            return None
        new_y = Combine(y(slot), ((1.0, grad), (-1.0, at.grad)))
        study = (new_y, *memory.questions(grad))
        first = 1.0 if memory.slots else first_step(memory.square)
        path = StraightPath(at, direction, proposal.slope, study, memory.place_of_slope)
        search = start_search(self.config.line_search, at.loss, proposal.slope, first)
        landed = yield from walk(path, search, proposal.commands, counts)
        if landed is None:
            return None
        answers = landed.studied[path.EXTRA :]
        length, epsilon = landed.step_length, self.config.curvature_epsilon
        learnt = memory.learn(answers, length, self.config.history_length, epsilon)
        counts["skipped"] += slot not in learnt.slots
        return path.landed(at, landed), learnt

    def forget(self, memory: H) -> H | None:
        return memory.forget() if memory.slots else None
