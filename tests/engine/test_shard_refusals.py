"""What a parameter shard refuses, each time without having changed."""

import math

import pytest
import torch

from engine.applied_pushes import WINDOW
from engine.ledger import Progress
from engine.push import (
    FencedShardError,
    HugePushError,
    MisshapenPushError,
    NonFinitePushError,
    PushRefusedError,
    StaleIncarnationError,
    StalePushError,
)
from engine.rules import make_rule
from engine.shard import ParameterShard
from engine.state import NUM_ROWS
from tests.engine.shards import RULE, Contents, new_shard, new_state, push, vector

SIZE = 10


@pytest.fixture
def shard() -> ParameterShard:
    """A shard that has applied one push."""
    shard = new_shard(SIZE, max_staleness=3)
    shard.push(push(1), vector(SIZE, 1))
    return shard


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_refused_with_replica_and_count(shard, value):
    grad, before = vector(SIZE, 2), Contents.of(shard)
    grad[3] = grad[7] = value
    with pytest.raises(NonFinitePushError, match="replica 5, push 4: 2 of 10 gradient values"):
        shard.push(push(4, replica=5), grad)
    assert Contents.of(shard) == before


def test_infinities_that_cancel_are_refused_too(shard):
    grad = vector(SIZE, 2)
    grad[0], grad[1] = math.inf, -math.inf
    with pytest.raises(NonFinitePushError, match="2 of 10"):
        shard.push(push(2), grad)


def test_a_finite_gradient_whose_sum_overflows_is_applied(shard):
    assert not shard.push(push(2), torch.full((SIZE,), 3e38)).duplicate
    assert shard.version == 2


def test_a_refused_push_may_come_again_with_a_better_gradient(shard):
    with pytest.raises(NonFinitePushError):
        shard.push(push(2), torch.full((SIZE,), math.nan))
    assert not shard.push(push(2), vector(SIZE, 2)).duplicate


@pytest.mark.parametrize("grad", [torch.zeros(9), torch.zeros(2, 5), torch.zeros(10).double()])
def test_a_gradient_of_another_shape_or_dtype_is_refused(shard, grad):
    before = Contents.of(shard)
    with pytest.raises(MisshapenPushError, match=r"built from different layouts"):
        shard.push(push(2), grad)
    assert Contents.of(shard) == before


@pytest.mark.parametrize("factor", [1e6, 3e38])
def test_a_huge_gradient_is_refused_where_there_is_a_bound_and_a_common_one_is_not(factor):
    shard = ParameterShard(new_state(SIZE), make_rule(RULE), epoch=1, max_norm=100.0)
    assert shard.push(push(1), vector(SIZE, 1)).version == 1
    before = Contents.of(shard)
    match = r"replica 0, push 2: .* norm \d.*, max_push_norm=100"
    with pytest.raises(HugePushError, match=match):
        shard.push(push(2), torch.full((SIZE,), factor))
    assert Contents.of(shard) == before
    assert shard.push(push(2), vector(SIZE, 2)).version == 2


def test_a_push_staler_than_the_bound_is_refused(shard):
    for sequence in (2, 3, 4):
        shard.push(push(sequence, fetched=shard.version), vector(SIZE, 1))
    before = Contents.of(shard)
    with pytest.raises(StalePushError, match="4 updates stale, max_staleness=3"):
        shard.push(push(5, fetched=0), vector(SIZE, 1))
    assert Contents.of(shard) == before
    assert shard.push(push(5, fetched=1), vector(SIZE, 1)).staleness == 3


def test_a_push_too_old_to_tell_from_a_duplicate_is_refused():
    shard = new_shard(SIZE)
    shard.push(push(WINDOW + 1), vector(SIZE, 1))
    before = Contents.of(shard)
    with pytest.raises(StalePushError, match=f"push 1 is {WINDOW} behind .* remembers {WINDOW}"):
        shard.push(push(1), vector(SIZE, 1))
    assert Contents.of(shard) == before
    assert not shard.push(push(2), vector(SIZE, 1)).duplicate  # the oldest it can tell


def test_a_long_gap_in_the_numbers_forgets_nothing_that_it_should_remember():
    shard = new_shard(SIZE)
    for sequence in (1, WINDOW, 10 * WINDOW):
        assert not shard.push(push(sequence), vector(SIZE, 1)).duplicate
    assert shard.push(push(10 * WINDOW), vector(SIZE, 1)).duplicate
    assert not shard.push(push(9 * WINDOW + 1), vector(SIZE, 1)).duplicate
    with pytest.raises(StalePushError):
        shard.push(push(WINDOW), vector(SIZE, 1))


def test_a_fenced_incarnation_is_refused_and_the_next_one_is_not(shard):
    assert shard.fence(0, 1) == Progress(1, 1)
    before = Contents.of(shard)
    for sequence in (1, 2):  # one that was applied, one that was not
        with pytest.raises(StaleIncarnationError, match="replica 0 incarnation 1 was replaced"):
            shard.push(push(sequence), vector(SIZE, 1))
    assert Contents.of(shard) == before
    assert not shard.push(push(1, incarnation=2), vector(SIZE, 1)).duplicate


def test_an_incarnation_can_be_fenced_before_its_first_push(shard):
    assert shard.fence(4, 1) is None
    with pytest.raises(StaleIncarnationError):
        shard.push(push(1, replica=4), vector(SIZE, 1))


def test_every_refusal_is_one_that_a_client_must_not_repeat():
    refusals = {NonFinitePushError, StaleIncarnationError, StalePushError}
    assert all(issubclass(refusal, PushRefusedError) for refusal in refusals)
    assert not issubclass(FencedShardError, PushRefusedError)


def test_an_owner_that_was_replaced_neither_reads_nor_writes():
    state = new_state(SIZE)
    old = ParameterShard(state, make_rule(RULE), epoch=1)
    new = ParameterShard(state, make_rule(RULE), epoch=2)
    before = Contents.of(new)
    for attempt in (
        lambda: old.push(push(1), vector(SIZE, 1)),
        lambda: old.fetch(torch.empty(SIZE)),
        lambda: old.fence(0, 1),
        old.copy,
    ):
        with pytest.raises(FencedShardError, match="epoch 1 was replaced by epoch 2"):
            attempt()
    assert Contents.of(new) == before


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_that_is_not_newer_cannot_take_over(epoch):
    state = new_state(SIZE)
    owner = ParameterShard(state, make_rule(RULE), epoch=2)
    with pytest.raises(FencedShardError, match=f"epoch {epoch} wants a shard that epoch 2"):
        ParameterShard(state, make_rule(RULE), epoch=epoch)
    owner.push(push(1), vector(SIZE, 1))


def test_a_life_that_was_pushed_out_of_the_table_stays_refused(shard):
    """More lives than rows: the fence of the first one is forgotten, its newer lives are not."""
    for incarnation in range(1, NUM_ROWS + 2):
        shard.push(push(1, incarnation=incarnation, fetched=shard.version), vector(SIZE, 1))
        shard.fence(0, incarnation)
    with pytest.raises(StaleIncarnationError, match="incarnation 1 was replaced"):
        shard.push(push(2, incarnation=1), vector(SIZE, 1))
    assert shard.fence(0, 1) is None
    assert shard.version == NUM_ROWS + 1
