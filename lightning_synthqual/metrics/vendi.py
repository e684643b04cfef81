"""Vendi score: the effective number of different images in one set."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Metric
from lightning_synthqual.metrics.features import check_features
from lightning_synthqual.metrics.options import Options, option


def vendi_score(features: Tensor, *, q: float = 1.0) -> Tensor:
    """Vendi score of Friedman and Dieng 2023 (arXiv:2210.02410) with the cosine kernel; higher is more diverse.

    The exponential of the entropy (for ``q != 1`` the Rényi entropy of order q) of the eigenvalues of the kernel matrix
    divided by the number of rows: 1 if all rows point the same way, N if all are orthogonal. It looks at one set alone,
    so noise scores high. Agrees with the package vendi_score.

    Args:
        features: Features (N, D), any floating dtype, any device; no row is zero.
        q: Order of the entropy, at least 0; ``float("inf")`` is allowed. Small orders count rare directions more.

    Returns:
        Scalar float64 tensor from 1 to min(N, D).

    Raises:
        TypeError: If the features are no tensor.
        ValueError: If the features are not floating point, there are fewer than 2 rows, a value is NaN or infinite, a
            row is zero, or ``q`` is negative.

    Example:
        >>> import torch
        >>> round(vendi_score(torch.eye(4)).item(), 6), round(vendi_score(torch.ones(4, 3)).item(), 6)
        (4.0, 1.0)
    """
    rows = check_features(features, "features").double()
    if not q >= 0:
        raise ValueError(f"`q` must be at least 0, but got {q}.")
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not lengths.all():
        raise ValueError(f"Row {int((lengths == 0).nonzero()[0, 0])} of `features` is zero, so it has no direction.")
    unit = rows / lengths
    # The Gram matrix and the kernel matrix have the same eigenvalues but for zeros.
    matrix = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    shares = torch.linalg.eigvalsh(matrix / len(unit)).clamp(min=0)
    score: Tensor
    if q == 1:
        score = (-torch.special.xlogy(shares, shares).sum()).exp()
    elif q == float("inf"):
        score = shares.max().reciprocal()
    else:
        shares = shares[shares > len(unit) * torch.finfo(shares.dtype).eps]
        score = shares.pow(q).sum().pow(1 / (1 - q))
    return score


class VendiScore(Metric):
    """Vendi score of generated images; see the function ``vendi_score``."""

    family = "vendi"
    direction = "max"
    reads_real = False
    OPTIONS: ClassVar[Options] = {"q": option(1.0, low=0)}

    def prepare(self, real: Tensor) -> None:
        """Nothing: real images take no part."""

    def score(self, state: None, fake: Tensor) -> Tensor:
        """The score of generated features (M, D)."""
        return vendi_score(fake, q=self.options["q"])
