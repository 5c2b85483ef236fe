"""Gradient descent with momentum on the full batch, without a line search."""

from collections import Counter
from dataclasses import dataclass

from engine.batch.config import DescentConfig
from engine.batch.iterate import Iterate, relative_change
from engine.batch.names import twin, twins
from engine.batch.program import Ask, evaluate, run
from engine.batch.starting import start_smooth
from engine.batch.vector import Combine, MaxAbs


@dataclass(frozen=True)
class Velocity:
    """The name of the velocity; none before the first step."""

    name: str | None = None


class Descent:
    """v' = momentum v + g, x' = x - learning_rate v'; torch.optim.SGD's order of operations."""

    memory = Velocity

    def __init__(self, config: DescentConfig) -> None:
        self.config = config

    @property
    def vectors(self) -> tuple[str, ...]:
        return tuple(twins("x", "grad", "velocity"))

    def start(self, counts: Counter[str]) -> Ask[tuple[Iterate, Velocity]]:
        at, _ = yield from start_smooth(counts)
        return at, Velocity()

    def step(
        self, at: Iterate, memory: Velocity, counts: Counter[str]
    ) -> Ask[tuple[Iterate, Velocity] | None]:
        point, grad, rate = twin(at.point), twin(at.grad), self.config.learning_rate
        velocity = twin(memory.name or "velocity1")
        before = ((self.config.momentum, memory.name),) if memory.name else ()
        yield from run(
            Combine(velocity, (*before, (1.0, at.grad))),
            Combine(point, ((1.0, at.point), (-rate, velocity))),
        )
        loss = yield from evaluate(point, grad)
        counts["gradients"] += 1
        (norm,) = yield from run(MaxAbs(grad))
        taken = Iterate(
            iteration=at.iteration + 1,
            point=point,
            grad=grad,
            loss=loss,
            gradient_norm=norm,
            step_length=rate,
            change=relative_change(at.loss, loss),
        )
        return taken, Velocity(velocity)

    def forget(self, memory: Velocity) -> Velocity | None:
        return None
