"""Vendi score: the effective number of different images in one set."""

from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score
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
    unit = _directions(features, q)
    return _diversity(torch.linalg.eigvalsh(_matrix(unit)).clamp(min=0), len(unit), q)[0]


def vendi_influence(features: Tensor, *, q: float = 1.0) -> Influence:
    """The Vendi score, and what each row adds to it, to first order.

    Without a row x of length 1 each share of a direction v changes by ``(share - (x·v)²) / (N - 1)``, and the score by
    its derivative. A direction that few rows have is far from linear, so that with fewer rows than columns, or orders
    far below 1, leaving a row out changes more than the influence says. The number of directions (``q=0``) has no
    derivative: its influences are 0.

    Args:
        features: Features (N, D), any floating dtype, any device; no row is zero.
        q: Order of the entropy, as in ``vendi_score``.

    Returns:
        The score, and the influences of the rows (N,), float64; none of real rows.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: As ``vendi_score`` raises it.

    Example:
        >>> import torch
        >>> found = vendi_influence(torch.eye(2)[[0, 0, 0, 1]], q=2.0)
        >>> round(found.value.item(), 6), [round(each, 6) for each in found.fake.tolist()]
        (1.6, [-0.64, -0.64, -0.64, 1.92])
    """
    unit = _directions(features, q)
    shares, vectors = torch.linalg.eigh(_matrix(unit))
    shares = shares.clamp(min=0)
    value, slopes = _diversity(shares, len(unit), q)
    if len(unit) <= unit.shape[1]:
        influences = vectors.square() @ (len(unit) * shares * slopes)
    else:
        influences = (unit @ vectors).square() @ slopes
    return Influence(value, influences - influences.mean(), influences.new_zeros(0))


def _directions(features: Tensor, q: float) -> Tensor:
    """The rows (N, D), float64, at length 1."""
    rows = check_features(features, "features").double()
    if not q >= 0:
        raise ValueError(f"`q` must be at least 0, but got {q}.")
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not lengths.all():
        raise ValueError(f"Row {int((lengths == 0).nonzero()[0, 0])} of `features` is zero, so it has no direction.")
    return rows / lengths


def _matrix(unit: Tensor) -> Tensor:
    """The smaller of Gram matrix and kernel matrix, whose eigenvalues are the same but for zeros, over N."""
    matrix = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    return matrix / len(unit)


def _diversity(shares: Tensor, count: int, q: float) -> tuple[Tensor, Tensor]:
    """The score of the shares (k,), which sum to 1, in ascending order, of ``count`` rows; and its derivatives (k,)."""
    slopes = torch.zeros_like(shares)
    if q == inf:
        score = shares[-1].reciprocal()
        slopes[-1] = -score.square()
        return score, slopes
    real = shares > count * torch.finfo(shares.dtype).eps
    if q == 1:
        score = (-torch.special.xlogy(shares, shares).sum()).exp()
        slopes[real] = -score * shares[real].log()
        return score, slopes
    power = shares[real].pow(q).sum()
    score = power.pow(1 / (1 - q))
    slopes[real] = score * q / (1 - q) * shares[real].pow(q - 1) / power
    return score, slopes


class VendiScore(Metric):
    """Vendi score of generated images; see the function ``vendi_score``."""

    family = "vendi"
    direction = "max"
    reads_real = False
    OPTIONS: ClassVar[Options] = {"q": option(1.0, low=0)}

    def prepare(self, real: Tensor) -> None:
        """Nothing: real images take no part."""

    def score(self, state: None, fake: Tensor) -> Score:
        """The score of generated features (M, D)."""
        q = self.options["q"]
        if q == 0:
            return Score(vendi_score(fake, q=q))
        influence = vendi_influence(fake, q=q)
        return Score(influence.value, influence=influence)
