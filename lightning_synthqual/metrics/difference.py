"""Differences of scores, paired where the rows of both belong together: what is common to them cancels."""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Score

SURE = 2.0  # standard errors beyond which a difference is taken for more than chance


class Difference(NamedTuple):
    """The difference of two scores.

    Attributes:
        value: The first score minus the second one.
        std: Its standard error; ``None`` if a score has none.
        paired: Whether the error is that of a paired difference: of the same latents against the same real images.

    Example:
        >>> Difference(-0.5, 0.25, True).z
        -2.0
    """

    value: float
    std: float | None
    paired: bool

    @property
    def z(self) -> float | None:
        """The difference in standard errors; ``None`` if there is no error, or it is 0."""
        return self.value / self.std if self.std else None


def difference(a: Score, b: Score, *, paired: bool) -> Difference:
    """Subtract score ``b`` from score ``a``.

    Args:
        a: A score.
        b: Another one of the same metric.
        paired: Whether row i of both belongs to the same latent, and the real rows are the same. Without influences of
            both, or with other numbers of rows, the error is that of independent scores all the same.

    Returns:
        The difference with its standard error.
    """
    value = float(a.value) - float(b.value)
    if paired and _same_lengths(a.influence, b.influence):
        error = paired_difference(a, b).error
        return Difference(value, None if error is None else float(error), True)
    if a.error is None or b.error is None:
        return Difference(value, None, False)
    return Difference(value, sqrt(float(a.error) ** 2 + float(b.error) ** 2), False)


def paired_difference(a: Score, b: Score, *, same_real: bool = True) -> Score:
    """Score ``a`` minus score ``b`` with the influence of each row on the difference, given the influences of both.

    Near equality influences are noisy, and the noise is counted twice: scores that know their second order have smaller
    errors than those of their influences. Of a difference the noise is taken off in the same share, but only where
    there is any: the difference between the slopes of two distances is well known, since what is common to both
    generators cancels in it. It is seen in the real rows, which are the same for both, and adds as much to the
    generated ones; what these have beyond that is due to the noisy slopes, taken at rows that differ.

    Args:
        a: A score of M generated rows.
        b: Another one of the same rows, or of rows of the same latents.
        same_real: Whether the real rows are the same; if not, the influence has the real rows of ``a``, then of ``b``.
    """
    assert a.influence is not None
    assert b.influence is not None
    one, other = a.influence, b.influence
    value = torch.as_tensor(float(a.value) - float(b.value), dtype=torch.float64)
    if same_real:
        real = one.real.double() - other.real.double()
    else:
        # Scaled so that the variance of their mean is the sum of both variances.
        count = len(one.real) + len(other.real)
        parts = [sign * count / max(len(x), 1) * x.double() for sign, x in ((1, one.real), (-1, other.real))]
        real = torch.cat(parts)
    found = Influence(value, one.fake.double() - other.fake.double(), real)
    variance = found.std.square()
    known = torch.zeros(())
    if same_real and len(real) > 1:
        alike = (1 + _correlation(one.fake, other.fake)) / 2
        known = real.var() * (1 / len(real) + alike / max(len(one.fake), 1))
    reduced = variance - _noise(a, b) * (variance - known).clamp(min=0)
    return Score(value, torch.maximum(reduced, variance / 2).sqrt(), found)  # nothing is counted more than twice


def _noise(a: Score, b: Score) -> float:
    """The share of the squared influences that is counted twice."""
    scores = [each for each in (a, b) if each.influence is not None and each.error is not None]
    first = sum(float(each.influence.std) ** 2 for each in scores if each.influence is not None)
    known = sum(float(each.error or 0.0) ** 2 for each in scores)
    return min(max(2 - 2 * known / first, 0.0), 1.0) if first > 0 else 0.0


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    size = (one.double().square().sum() * other.double().square().sum()).sqrt()
    return (one.double() * other.double()).sum() / size if size > 0 else torch.ones(())


def _same_lengths(a: Influence | None, b: Influence | None) -> bool:
    return a is not None and b is not None and (len(a.fake), len(a.real)) == (len(b.fake), len(b.real))
