"""Arrays as a unit of data."""

import numpy as np
import pytest
import torch

from engine.arrays import Arrays
from engine.ledger import Lease


def read(data: Arrays, epoch: int, start: int, stop: int, size: int = 4) -> list[int]:
    lease = Lease(1, epoch, 0, start, stop)
    minibatches = list(data.minibatches(lease, size))
    assert all(m.num_samples == len(m.payload[0]) <= size for m in minibatches)
    return [int(x) for m in minibatches for x in m.payload[0]]


def test_an_epoch_has_each_sample_once_however_it_is_leased():
    data = Arrays(np.arange(10))
    assert sorted(read(data, 0, 0, 7) + read(data, 0, 7, 10)) == list(range(10))
    assert read(data, 0, 0, 10) == read(data, 0, 0, 7) + read(data, 0, 7, 10)
    assert data.unit_sizes == (10,)


def test_the_order_is_that_of_seed_and_epoch():
    orders = {
        tuple(read(Arrays(np.arange(100), seed=seed), epoch, 0, 100))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4
    assert read(Arrays(np.arange(100)), 1, 0, 100) == read(Arrays(torch.arange(100)), 1, 0, 100)


def test_samples_of_all_arrays_stay_together():
    (minibatch,) = Arrays(np.arange(9), 10 * np.arange(9)).minibatches(Lease(1, 0, 0, 0, 9), 9)
    assert torch.equal(10 * minibatch.payload[0], minibatch.payload[1])


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"arrays of \[3, 4\] samples: want one or more of equal"):
        Arrays(np.zeros(3), np.zeros(4))


def test_a_number_is_no_array_of_samples():
    with pytest.raises(ValueError, match=r"array 1 is a single torch.float32: want samples along"):
        Arrays(np.zeros(3), 0.5)
