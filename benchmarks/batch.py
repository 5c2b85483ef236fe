"""L-BFGS beside scipy's and torch's in one process: evaluations, and the optimiser's own time.

    python -m benchmarks.batch

Evaluations are counted until the loss is within 1e-10 of its minimum. The optimiser's own time is
that of an iteration on two million parameters in single precision with a history of 10, less
that of the evaluations; all on one thread. Traffic is counted in vectors that go from or to memory.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter

import numpy as np
import torch
from scipy import optimize
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor
from torch.nn import functional

from benchmarks._figures import Figure, state
from engine.batch.config import LbfgsConfig
from engine.batch.local import LocalStore
from engine.batch.methods import vector_names
from engine.batch.minimise import drive, minimise
from engine.batch.names import START
from engine.batch.program import Span
from engine.batch.vector import Command, reads, writes

NUM_PARAMETERS, NUM_ITERATIONS, NUM_TURNS, HISTORY = 2_000_000, 30, 5, 10

#: (x, gradient to overwrite) -> loss
Loss = Callable[[Tensor, Tensor], float]


class Counted:
    """An objective that remembers when its loss first fell below a bound, and its own time."""

    def __init__(self, loss: Loss, bound: float = -np.inf) -> None:
        self._loss, self._bound = loss, bound
        self.num_calls, self.reached, self.time_s, self.lowest = 0, 0, 0.0, np.inf

    def __call__(self, x: Tensor, grad: Tensor | None, samples: Span | None = None) -> float:
        started = perf_counter()
        loss = self._loss(x, torch.empty_like(x) if grad is None else grad)
        self.time_s += perf_counter() - started
        self.num_calls += 1
        self.lowest = min(self.lowest, loss)
        if not self.reached and loss <= self._bound:
            self.reached = self.num_calls
        return loss


def ours(objective: Counted, initial: Tensor, num_iterations: int) -> int:
    """Run L-BFGS; the number of iterations."""
    config = LbfgsConfig(
        max_iterations=num_iterations, loss_tolerance=0.0, gradient_tolerance=1e-12
    )
    return minimise(objective, initial, config).solution.iterate.iteration


def by_torch(objective: Counted, initial: Tensor, num_iterations: int) -> int:
    """Run torch.optim.LBFGS; the number of iterations."""
    x = initial.clone().requires_grad_()
    rival = torch.optim.LBFGS(
        [x],
        max_iter=num_iterations,
        max_eval=10 * num_iterations,
        history_size=HISTORY,
        tolerance_grad=1e-12,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    x.grad = torch.empty_like(x)
    grad = x.grad
    rival.step(lambda: objective(x.detach(), grad))  # type: ignore[no-untyped-call]
    return int(rival.state[x]["n_iter"])


def by_scipy(objective: Counted, initial: Tensor, num_iterations: int) -> int:
    """Run scipy's L-BFGS-B without bounds; the number of iterations."""

    def loss_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        grad = torch.empty(len(x), dtype=torch.float64)
        return objective(torch.from_numpy(x.copy()), grad), grad.numpy()

    options = {"maxcor": HISTORY, "ftol": 0.0, "gtol": 1e-12, "maxiter": num_iterations}
    start = initial.double().numpy()
    found = optimize.minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options
    )
    return int(found.nit)


def logistic(points: np.ndarray, classes: np.ndarray) -> tuple[Loss, Tensor]:
    """Mean logistic loss with l2 = 0.01, from 0."""
    x = torch.from_numpy((points - points.mean(0)) / (points.std(0) + 1e-9))
    y = torch.from_numpy(np.where(classes > 0, 1.0, -1.0))

    def loss(w: Tensor, grad: Tensor) -> float:
        margins = y * (x @ w)
        grad.copy_(x.T @ (-y * torch.sigmoid(-margins)) / len(y) + 0.01 * w)
        return float(functional.softplus(-margins).mean() + 0.005 * w.dot(w))

    return loss, torch.zeros(x.shape[1], dtype=torch.float64)


def rosenbrock(x: Tensor, grad: Tensor) -> float:
    """Sum of 100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2."""
    a, b = x[:-1], x[1:]
    grad.zero_()
    grad[:-1] = -400 * a * (b - a**2) - 2 * (1 - a)
    grad[1:] += 200 * (b - a**2)
    return float((100 * (b - a**2) ** 2 + (1 - a) ** 2).sum())


def quadratic(condition: float) -> Loss:
    """Half the weighted squares of x - 1, with weights from 1 to `condition`."""

    def loss(x: Tensor, grad: Tensor) -> float:
        weights = torch.logspace(0, float(np.log10(condition)), len(x), dtype=x.dtype)
        torch.mul(weights, x - 1, out=grad)
        return float(grad.dot(x - 1) / 2)

    return loss


def evaluations() -> list[Figure]:
    """How many evaluations each optimiser needs, problem by problem."""
    cancer, digits = load_breast_cancer(), load_digits()
    problems: dict[str, tuple[Loss, Tensor]] = {
        "breast cancer": logistic(cancer.data, cancer.target),
        "odd digits": logistic(digits.data, digits.target % 2),
        "rosenbrock": (rosenbrock, torch.tensor([-1.2, 1.0] * 5, dtype=torch.float64)),
        "condition 1e4": (quadratic(1e4), torch.zeros(10, dtype=torch.float64)),
    }
    figures = []
    for name, (loss, initial) in problems.items():
        best = Counted(loss)
        ours(best, initial, 5000)
        counts = []
        for run in (ours, by_scipy, by_torch):
            objective = Counted(loss, best.lowest + 1e-10)
            run(objective, initial, 5000)
            counts.append(objective.reached or 10**9)
        for rival, count in (("scipy L-BFGS-B", counts[1]), ("torch LBFGS", counts[2])):
            label = f"{name}, {rival.split()[0]}"
            figures.append(Figure(label, "evaluations", counts[0], count, rival, 0.9, False))
    return figures


def own_time() -> Figure:
    """Time of an iteration without its evaluations, in milliseconds; the runs take turns."""
    initial = torch.zeros(NUM_PARAMETERS)
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    for _ in range(NUM_TURNS):
        for name, run in (("ours", ours), ("torch", by_torch)):
            objective = Counted(quadratic(1e3))
            started = perf_counter()
            num_iterations = run(objective, initial, NUM_ITERATIONS)
            times[name].append((perf_counter() - started - objective.time_s) / num_iterations)
    mine, rival = (1e3 * min(times[name]) for name in ("ours", "torch"))
    return Figure("own time of an iteration", "ms", mine, rival, "torch LBFGS", 1.0, False)


class Metered(LocalStore):
    """Counts the vectors that commands read or write, each command's own once."""

    traffic = 0

    def run(self, commands: Sequence[Command]) -> tuple[float, ...]:
        for command in commands:
            self.traffic += len(set(reads(command))) + (writes(command) is not None)
        return super().run(commands)


def traffic() -> Figure:
    """Vectors moved in an iteration whose first trial is accepted, beside the fewest possible.

    The fewest: the pairs and the gradient make the direction, with x the trial point; then the new
    gradient, the old one and the direction make y and, with the pairs, all inner products.
    """
    store = Metered(**{START: torch.zeros(1000)})
    config = LbfgsConfig(max_iterations=NUM_ITERATIONS, history_length=HISTORY, loss_tolerance=0.0)
    store.reserve(vector_names(config))
    moved: list[int] = []
    drive(store, Counted(quadratic(1e3)), config, None, lambda record: moved.append(store.traffic))
    least = (2 * HISTORY + 1) + 1 + 1 + 1 + 3 + 2 * HISTORY + 1
    each = min(after - before for before, after in pairwise(moved[HISTORY + 1 :]))
    return Figure("traffic of an iteration", "vectors", each, least, "the least", 0.9, False)


def main() -> None:
    torch.set_num_threads(1)
    state("batch", [*evaluations(), traffic(), own_time()])


if __name__ == "__main__":
    main()
