"""Fast copies leave what torch's own would leave."""

import pytest
import torch
from torch import Tensor

from engine.copying import copy_

VALUES = torch.arange(24, dtype=torch.float32).reshape(4, 6)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(VALUES, id="as it lies"),
        pytest.param(VALUES.t().contiguous().t(), id="columns first"),
        pytest.param(VALUES.double(), id="another type"),
        pytest.param(VALUES[:1].expand(4, 6), id="one row for all"),
    ],
)
def test_a_copy_has_the_values_of_its_source(source: Tensor) -> None:
    into = torch.full((4, 6), -1.0)
    copy_(into, source)
    assert torch.equal(into, source.float())


def test_a_view_is_filled_and_its_neighbours_are_left() -> None:
    flat = torch.full((30,), -1.0)
    copy_(flat[3:27].view(4, 6), VALUES)
    assert torch.equal(flat[3:27].view(4, 6), VALUES)
    assert torch.equal(flat[:3], torch.full((3,), -1.0))
    assert torch.equal(flat[27:], torch.full((3,), -1.0))


def test_nothing_is_copied_into_nothing() -> None:
    copy_(torch.empty(0), torch.empty(0))


def test_half_as_many_values_are_refused() -> None:
    with pytest.raises(RuntimeError, match="size"):
        copy_(torch.empty(4), torch.empty(2))
