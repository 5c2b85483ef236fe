"""Error measures of classification, as fractions in [0, 1]."""

import torch
from torch import Tensor


def top_k_error(posteriors: Tensor, labels: Tensor, k: int) -> float:
    """Fraction of images whose true class is not among the k highest posteriors.

    See `outside_top_k` for the arguments; N is at least 1.
    """
    return outside_top_k(posteriors, labels, k).double().mean().item()


def outside_top_k(posteriors: Tensor, labels: Tensor, k: int) -> Tensor:
    """Tell for each image whether its true class is missed by the k highest posteriors.

    Equal posteriors rank in the order of their classes, as argmax ranks them, so that a network
    that tells nothing apart is not rewarded. With k classes or fewer nothing can be missed.

    Args:
        posteriors: (N, K), any scores that rank the classes.
        labels: (N,) integers in [0, K).

    Returns:
        (N,) bool.
    """
    num_classes = posteriors.shape[1]
    if ((labels < 0) | (labels >= num_classes)).any():
        raise ValueError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}, "
            f"posteriors know the classes 0 to {num_classes - 1}"
        )
    truth = posteriors.gather(1, labels[:, None])
    of_lower_class = torch.arange(num_classes) < labels[:, None]
    before_truth = (posteriors > truth) | ((posteriors == truth) & of_lower_class)
    return before_truth.sum(1) >= k


def mean_class_recall(predicted: Tensor, labels: Tensor) -> float:
    """Recall averaged over the classes that occur in `labels` (Caltech's measure, appendix B).

    Args:
        predicted, labels: (N,) integers, N at least 1.
    """
    images = torch.bincount(labels)
    hits = torch.bincount(labels[predicted == labels], minlength=len(images))
    return (hits / images)[images > 0].double().mean().item()
