"""How a run cuts its data into portions, and in which order batches take them. Pure."""

import random
from collections.abc import Sequence
from dataclasses import replace

from engine.batch.config import MultibatchConfig
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.portions import Portion, cut_data


def sized(config: SandblasterConfig, num_samples: int) -> SandblasterConfig:
    """`config` for a problem of `num_samples`, which an optimiser that draws batches must know.

    Raises:
        ValueError: the configuration says another number.
    """
    optimiser = config.optimiser
    if not isinstance(optimiser, MultibatchConfig):
        return config
    if optimiser.num_samples not in (None, num_samples):
        raise ValueError(
            f"algorithm.optimiser.num_samples={optimiser.num_samples}, but the training data has "
            f"{num_samples} samples: leave it out, or set it to {num_samples}"
        )
    return replace(config, optimiser=replace(optimiser, num_samples=num_samples))


def planned_portions(unit_sizes: Sequence[int], config: SandblasterConfig) -> tuple[Portion, ...]:
    """The portions of the whole data, numbered in the order in which batches take them.

    A full batch takes them as they lie. Smaller batches are stretches of an order that is drawn
    from the seed once for the run: what lies together in a unit is not in one batch for that, and
    a run that goes on from its record, with whatever processes, has the same batches.
    """
    portions = cut_data(unit_sizes, config.minibatch_size * config.portion_minibatches)
    if not isinstance(config.optimiser, MultibatchConfig):
        return portions
    drawn = random.Random(config.seed).sample(portions, len(portions))
    return tuple(portion._replace(number=place) for place, portion in enumerate(drawn))
