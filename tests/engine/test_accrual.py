"""Gradients accrue in the slot, or apart from it and come there once."""

import pytest
import torch
from torch import Tensor

from engine.accrual import Accrual
from tests.engine.devices import DEVICES


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_push", [1, 3])
def test_the_slot_holds_the_sum_since_the_first(device, n_push):
    slots = [torch.full((5,), torch.nan) for _ in range(2)]
    accrual = Accrual(slots, torch.device(device), n_push)
    values = iter([1.0, 20.0, 300.0, 7.0, 7.0, 7.0])
    for slot in slots:
        expected = torch.zeros(5)
        for number in range(n_push):
            value = next(values)

            def compute(grad: Tensor, value: float = value) -> float:
                grad.fill_(value)
                return value

            result, grad = accrual.add(slot, compute, first=number == 0)
            expected += value
            assert result == value
            if number:  # the first is the sum so far
                assert grad.tolist() == [value] * 5
            assert grad.device.type == ("cpu" if n_push == 1 else device)
        accrual.finish(slot)
        assert torch.equal(slot, expected)
    assert torch.equal(slots[0], torch.full((5,), 1.0 if n_push == 1 else 321.0))
