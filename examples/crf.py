"""Reading rows of handwritten digits with a conditional random field, trained by L-BFGS.

    python -m examples.crf

Four seconds. In a row the digits mostly count upwards (9 is followed by 0), and images are noisy.
A classifier of single images reads 63 % of the held-out digits; the random field, which also
learns what follows what, 85 %.
"""

from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from engine.batch.config import LbfgsConfig
from engine.batch.full_batch import FullBatch
from engine.batch.minimise import minimise
from engine.ledger import Lease
from engine.problem import Minibatch
from engine.torch_problem import TorchProblem

NUM_CLASSES, ROW_LENGTH = 10, 8
NUM_TRAIN, NUM_TEST = 300, 100  # rows
COUNTING, NOISE, L2 = 0.8, 0.6, 1e-3


class Crf(nn.Module):
    """A linear-chain conditional random field (Lafferty, McCallum & Pereira 2001).

    The score of labels y for images x: sum of emission(x_t)[y_t] + transition[y_t, y_t+1].
    """

    def __init__(self, num_features: int, chained: bool) -> None:
        """Without `chained` the transitions stay 0: a logistic regression of each image."""
        super().__init__()
        self.emission = nn.Linear(num_features, NUM_CLASSES, dtype=torch.float64)
        none = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.float64)
        self.transition: Tensor
        if chained:
            self.transition = nn.Parameter(none)
        else:
            self.register_buffer("transition", none)
        nn.init.zeros_(self.emission.weight)
        nn.init.zeros_(self.emission.bias)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean of -log p(labels | images) over rows; images (B, T, F), labels (B, T)."""
        scores = self.emission(images)  # (B, T, K)
        own: Tensor = scores.gather(2, labels[:, :, None]).sum((1, 2))
        own = own + self.transition[labels[:, :-1], labels[:, 1:]].sum(1)
        forward = scores[:, 0]
        for t in range(1, scores.shape[1]):  # log of the sum over all labels of the row so far
            forward = (forward[:, :, None] + self.transition).logsumexp(1) + scores[:, t]
        mean: Tensor = (forward.logsumexp(1) - own).mean()
        return mean

    def read(self, images: Tensor) -> Tensor:
        """The labels of the highest score, (B, T), by Viterbi's recursion."""
        scores = self.emission(images)
        best, came_from = scores[:, 0], []
        for t in range(1, scores.shape[1]):
            best, before = (best[:, :, None] + self.transition).max(1)
            best = best + scores[:, t]
            came_from.append(before)
        labels = [best.argmax(1)]
        for before in reversed(came_from):
            labels.append(before.gather(1, labels[-1][:, None]).squeeze(1))
        return torch.stack(labels[::-1], 1)


def rows_of_digits() -> tuple[Tensor, Tensor]:
    """Noisy images (R, T, 64) in rows that mostly count upwards, and their labels (R, T)."""
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    images, classes = torch.from_numpy(digits.data) / 16, torch.from_numpy(digits.target)
    shape = (NUM_TRAIN + NUM_TEST, ROW_LENGTH)
    counts_on = torch.rand(shape, generator=generator) < COUNTING
    labels = torch.randint(NUM_CLASSES, shape, generator=generator)
    for t in range(1, ROW_LENGTH):
        labels[:, t] = torch.where(counts_on[:, t], (labels[:, t - 1] + 1) % 10, labels[:, t])
    chosen = torch.empty(shape, dtype=torch.int64)
    for label in range(NUM_CLASSES):
        places, examples = labels == label, (classes == label).nonzero().squeeze(1)
        draws = torch.randint(len(examples), (int(places.sum()),), generator=generator)
        chosen[places] = examples[draws]
    noise = torch.randn((*shape, 64), generator=generator, dtype=torch.float64)
    return images[chosen] - 0.5 + NOISE * noise, labels


def reading(chained: bool) -> TorchProblem:
    """Rows of digits to their labels; a sample is a row."""
    images, labels = rows_of_digits()

    def minibatches(lease: Lease, size: int) -> Iterator[Minibatch]:
        for start in range(lease.start, lease.stop, size):
            part = slice(start, min(start + size, lease.stop))
            yield Minibatch((images[part], labels[part]), len(labels[part]))

    def loss(net: nn.Module, payload: tuple[Tensor, Tensor]) -> Tensor:
        assert isinstance(net, Crf)
        squares = sum(parameter.square().sum() for parameter in net.parameters())
        return net.loss(*payload) + L2 / 2 * squares

    def measure(net: nn.Module) -> dict[str, float]:
        assert isinstance(net, Crf)
        right = net.read(images[NUM_TRAIN:]) == labels[NUM_TRAIN:]
        return {"accuracy": float(right.double().mean())}

    return TorchProblem(Crf(64, chained), loss, [NUM_TRAIN], minibatches, measure)


def main() -> None:
    torch.set_num_threads(1)  # small operations: threads would wait for each other
    for chained, name in ((False, "single images"), (True, "random field")):
        problem = reading(chained)
        batch = FullBatch(problem, minibatch_size=100)
        best = minimise(batch, problem.initial(), LbfgsConfig(gradient_tolerance=1e-4))
        at, accuracy = best.solution.iterate, problem.validate(best.point)["accuracy"]
        print(f"{name:14} {accuracy:6.1%} read, {at.iteration} iterations, loss {at.loss:.3f}")


if __name__ == "__main__":
    main()
