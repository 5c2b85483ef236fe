"""What a replica sums up, and with which random numbers."""

import torch
from torch import Tensor

from engine.sandblaster.work import Piece, WorkOrder, compute
from tests.engine.sandblaster.worlds import WholeNumbers


class Dice(WholeNumbers):
    """Gradients drawn at random, as dropout would."""

    def gradient_(self, parameters: Tensor, payload: Tensor, grad: Tensor) -> float:
        grad.copy_(torch.rand(len(grad), dtype=grad.dtype))
        return 1.0


def drawn(seed: int, size: int) -> Tensor:
    """What anybody draws after `seed`."""
    torch.manual_seed(seed)
    return torch.rand(size, dtype=torch.float64)


def test_a_mini_batch_draws_the_same_numbers_whoever_computes_it_and_after_whatever():
    problem = Dice()
    order = WorkOrder(1, 1, "x", gradient=True, portions=((0, 0, 2), (0, 2, 4)))
    pieces = [Piece(0, (problem.samples[:2], 2), 5), Piece(1, (problem.samples[2:4], 2), 6)]
    accrued, spare = torch.empty(2, len(problem.initial()), dtype=torch.float64)
    wanted = 2 * drawn(5, len(accrued)) + 2 * drawn(6, len(accrued))
    for _ in range(2):
        losses = compute(problem, problem.initial(), order, iter(pieces), accrued, spare)
        assert losses == [2.0, 2.0]
        torch.testing.assert_close(accrued, wanted, rtol=1e-15, atol=0)
