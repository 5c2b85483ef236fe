"""Error measures by sorting and counting, one image at a time."""

from collections.abc import Sequence


def top_k_error(posteriors: Sequence[Sequence[float]], labels: Sequence[int], k: int) -> float:
    wrong = 0
    for row, label in zip(posteriors, labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda c, row=row: (-row[c], c))
        wrong += label not in ranked[:k]
    return wrong / len(labels)


def mean_class_recall(predicted: Sequence[int], labels: Sequence[int]) -> float:
    recalls = []
    for c in sorted(set(labels)):
        of_class = [p for p, label in zip(predicted, labels, strict=True) if label == c]
        recalls.append(of_class.count(c) / len(of_class))
    return sum(recalls) / len(recalls)
