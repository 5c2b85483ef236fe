"""How a run cuts its data: in order for full batches, in a drawn order for smaller ones."""

from dataclasses import replace

import pytest

from engine.batch.config import MultibatchConfig
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.plan import planned_portions, sized
from engine.sandblaster.portions import cut_data

WHOLE = SandblasterConfig(minibatch_size=2, portion_minibatches=2)
SAMPLED = replace(WHOLE, optimiser=MultibatchConfig(batch_size=6), seed=3)
UNIT_SIZES = (13, 8, 21)


def places(portions) -> list[tuple[int, int, int]]:
    return [portion[1:] for portion in portions]


def test_a_full_batch_takes_the_portions_as_they_lie():
    assert planned_portions(UNIT_SIZES, WHOLE) == cut_data(UNIT_SIZES, 4)


def test_batches_take_every_portion_once_in_an_order_that_the_seed_decides():
    drawn = planned_portions(UNIT_SIZES, SAMPLED)
    assert sorted(places(drawn)) == places(cut_data(UNIT_SIZES, 4)) != places(drawn)
    assert [portion.number for portion in drawn] == list(range(len(drawn)))
    assert drawn == planned_portions(UNIT_SIZES, SAMPLED)
    assert drawn != planned_portions(UNIT_SIZES, replace(SAMPLED, seed=4))


def test_the_optimiser_is_told_how_many_samples_there_are():
    assert sized(SAMPLED, 42).optimiser == MultibatchConfig(batch_size=6, num_samples=42)
    assert sized(sized(SAMPLED, 42), 42) == sized(SAMPLED, 42)
    assert sized(WHOLE, 42) is WHOLE


def test_another_number_of_samples_is_refused():
    with pytest.raises(ValueError, match=r"num_samples=42, but the training data has 41 samples"):
        sized(sized(SAMPLED, 42), 41)
