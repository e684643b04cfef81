"""Means and medians of values that depend on each other where they have the same nearest real row.

Such rows share its luck: a real row that lies far out is far from all of them. So the variance of a mean is that of the
sums over clusters, rows with the same nearest real row. What it exceeds that of independent rows by is what the draw of
the real rows adds, and is attributed to them.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Parts(NamedTuple):
    """What each row adds to a value, mean zero; the variance of the value is the sum of the variances of two means.

    Attributes:
        own: Of the rows whose values were taken (M,), float64.
        real: Of the real rows that they are nearest to (N,), float64.
    """

    own: Tensor
    real: Tensor


def mean_parts(values: Tensor, nearest: Tensor, count: int) -> Parts | None:
    """What rows add to the mean of their values; ``None`` if all have the same nearest real row, or there is one alone.

    One neighbour's luck says nothing of another's. A row adds what its value differs from the mean; a real row adds the
    sum of what it is nearest to, reduced until the variance of both parts is that of clusters.

    Args:
        values: Values (M,), float64.
        nearest: Which real row is nearest to each (M,).
        count: Number of real rows, N.
    """
    variance = clustered_variance(values, nearest)
    if variance is None:
        return None
    own = values - values.mean()
    sums = values.new_zeros(count).index_add_(0, nearest, own) * (count / len(values))
    beyond = (variance - own.var() / len(own)).clamp(min=0)
    unreduced = sums.var() / count
    return Parts(own, sums * (beyond / unreduced).sqrt() if unreduced > 0 else torch.zeros_like(sums))


def median_parts(values: Tensor, nearest: Tensor, count: int) -> Parts | None:
    """What rows add to the median of their values, as ``mean_parts`` for the share of values up to it.

    How far the median moves with the share is taken from the order statistics one standard error of the share on
    either side.

    Args:
        values: Values (M,), float64.
        nearest: Which real row is nearest to each (M,).
        count: Number of real rows, N.
    """
    ordered, middle = values.sort().values, (len(values) - 1) / 2
    below = (values <= ordered[int(middle)]).double()
    parts, variance = mean_parts(below, nearest, count), clustered_variance(below, nearest)
    if parts is None or variance is None:
        return None
    reach = len(values) * float(variance.sqrt())
    low, high = max(0, round(middle - reach)), min(len(values) - 1, round(middle + reach))
    slope = (ordered[high] - ordered[low]) / 2 * (len(values) / reach if reach > 0 else 0.0)
    return Parts(-slope * parts.own, -slope * parts.real)


def clustered_variance(values: Tensor, clusters: Tensor) -> Tensor | None:
    """Variance of the mean of values (M,) that depend on each other within clusters (M,); ``None`` for a single one.

    The clusters' effective number (M^2 over the sum of their squared sizes) takes the place of their number in the
    correction for few of them.
    """
    _, places, sizes = clusters.unique(return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return None
    sums = values.new_zeros(len(sizes)).index_add_(0, places, values - values.mean())
    effective = len(values) ** 2 / sizes.double().square().sum()
    variance: Tensor = sums.square().sum() / len(values) ** 2 * (effective / (effective - 1))
    return variance
