"""Local response normalisation of column A-LRN (Krizhevsky et al. 2012, section 3.3)."""

import torch.nn.functional as F
from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + alpha * sum of a_j^2 over the n maps j nearest to i) ^ beta.

    The formula and the values are those printed by Krizhevsky, to whom Simonyan & Zisserman refer.
    Torch and Caffe divide alpha by n before they apply it, so alpha is handed on n times as large.
    The authors' net was built on Caffe and may really have run with alpha / n: the papers do not
    tell, and we follow what is printed.
    """

    def __init__(self, n: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        self.n, self.alpha, self.beta, self.k = n, alpha, beta, k

    def forward(self, activations: Tensor) -> Tensor:
        """Normalise (N, C, H, W) across its C maps; shape and type stay."""
        return F.local_response_norm(
            activations, self.n, alpha=self.alpha * self.n, beta=self.beta, k=self.k
        )

    def extra_repr(self) -> str:
        return f"n={self.n}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
