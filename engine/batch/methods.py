"""From a configuration to an optimiser's program."""

from typing import Any

from engine.batch.config import (
    ConjugateConfig,
    DescentConfig,
    LbfgsConfig,
    MultibatchConfig,
    OptimiserConfig,
    OwlqnConfig,
)
from engine.batch.conjugate import Conjugate
from engine.batch.descent import Descent
from engine.batch.gram import Gram
from engine.batch.iterate import Solution
from engine.batch.lbfgs import Lbfgs
from engine.batch.loop import Method, Record, optimise
from engine.batch.multibatch import Multibatch
from engine.batch.owlqn import Owlqn
from engine.batch.program import Ask
from engine.batch.two_loop import Pairs


def make_method(config: OptimiserConfig) -> Method[Any]:
    """The optimiser that `config` describes."""
    match config:
        case LbfgsConfig(form="gram"):
            return Lbfgs(config, Gram)
        case LbfgsConfig():
            return Lbfgs(config, Pairs)
        case OwlqnConfig():
            return Owlqn(config)
        case ConjugateConfig():
            return Conjugate(config)
        case DescentConfig():
            return Descent(config)
        case MultibatchConfig():
            return Multibatch(config)


def vector_names(config: OptimiserConfig) -> tuple[str, ...]:
    """All vectors that the optimiser works on; the initial point goes to `names.START`."""
    return make_method(config).vectors


def program(config: OptimiserConfig, record: Record | None = None) -> Ask[Solution]:
    """What to do, instruction by instruction (`engine.batch.program`).

    Args:
        record: the last one committed, to go on from; its vectors must be as they were then.
    """
    return optimise(make_method(config), record)
