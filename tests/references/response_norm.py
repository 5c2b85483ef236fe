"""Krizhevsky et al. 2012, section 3.3, as printed: one activation at a time."""

from torch import Tensor


def local_response_norm(a: Tensor, n: int, alpha: float, beta: float, k: float) -> Tensor:
    """b[i] = a[i] / (k + alpha * sum_{j=max(0,i-n/2)}^{min(N-1,i+n/2)} a[j]^2)^beta; a: (N,)."""
    b = a.clone()
    last = len(a) - 1
    for i in range(len(a)):
        total = 0.0
        for j in range(max(0, i - n // 2), min(last, i + n // 2) + 1):
            total += float(a[j]) ** 2
        b[i] = a[i] / (k + alpha * total) ** beta
    return b
