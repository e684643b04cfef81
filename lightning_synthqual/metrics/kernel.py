"""Kernel distances: squared maximum mean discrepancy between two feature sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.share import MEMORY, Share, tile_size, tiles

KernelName = Literal["polynomial", "rbf"]


class KernelDistance(NamedTuple):
    """A kernel distance and its standard deviation, float64 scalars.

    ``std`` is the standard error of ``value`` for the full-sample statistic, and the spread over the subsets for the
    subset estimator (what implementations of KID print).

    Attributes:
        value: The squared maximum mean discrepancy; unbiased ones may be below 0.
        std: As above, at least 0.

    Example:
        >>> import torch
        >>> distance = kernel_distance(torch.zeros(10, 2), torch.ones(10, 2))
        >>> distance.value.item(), distance.std.item()
        (7.0, 0.0)
    """

    value: Tensor
    std: Tensor


class Sums(NamedTuple):
    """What a distance needs of a kernel matrix: sums of its rows, of its columns, and of all its squares."""

    rows: Tensor
    columns: Tensor
    squares: Tensor


@dataclass(frozen=True)
class Kernel:
    """A kernel function of rows: ``(gamma x·y + coef0)^degree`` or ``exp(-|x - y|² / (2 sigma²)) - 1``.

    The constant -1 cancels in every distance, and keeps the digits of kernels that are nearly 1.
    """

    name: KernelName = "polynomial"
    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0
    sigma: float = 10.0

    def __post_init__(self) -> None:
        if self.name not in ("polynomial", "rbf"):
            raise ValueError(f"`kernel` must be 'polynomial' or 'rbf', but got {self.name!r}.")
        if self.sigma <= 0:
            raise ValueError(f"`sigma` must be positive, but got {self.sigma}.")

    def __call__(self, x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
        """Kernel matrix (N, M) of float64 rows (N, D) and (M, D)."""
        matrix = torch.mm(x, y.T, out=out)
        if self.name == "polynomial":
            gamma = 1.0 / x.shape[1] if self.gamma is None else self.gamma
            return matrix.mul_(gamma).add_(self.coef0).pow_(self.degree)
        sizes = (torch.linalg.vector_norm(rows, dim=1).square_() for rows in (x, y))
        matrix.mul_(-2).add_(next(sizes)[:, None]).add_(next(sizes))
        return matrix.clamp_(min=0).div_(-2 * self.sigma**2).expm1_()

    def origin(self, features: Tensor) -> Tensor:
        """What to subtract from all rows (D,): where only differences count, a far-off mean shall cost no digits."""
        return features[0].double() if self.name == "rbf" else features.new_zeros((), dtype=torch.float64)


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    *,
    kernel: KernelName = "polynomial",
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    sigma: float = 10.0,
    subsets: int | None = None,
    subset_size: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
) -> KernelDistance:
    """Unbiased squared maximum mean discrepancy; lower is better, and about 0 (either sign) for equal distributions.

    On the pool features of the FID network the polynomial kernel gives the KID of Bińkowski et al. 2018
    (arXiv:1801.01401). By default the exact U-statistic over all rows: deterministic, and of least variance. With
    ``subsets`` the mean over random subsets of equal size, drawn as torch-fidelity draws them (fake first), with
    which both agree.

    Args:
        real: Features (N, D), any floating dtype, any device.
        fake: Features (M, D).
        kernel: ``"polynomial"``: ``(gamma x·y + coef0)^degree``; ``"rbf"``: ``exp(-|x - y|² / (2 sigma²))``.
        degree: Of the polynomial.
        gamma: Of the polynomial; ``None``: 1 / D.
        coef0: Of the polynomial.
        sigma: Bandwidth of the rbf kernel.
        subsets: Number of subsets, or ``None`` for the exact statistic.
        subset_size: Rows in a subset.
        seed: Of the drawing of subsets.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        ``value`` and ``std``; for the exact statistic ``std`` is its standard error over draws of both sets.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set is too small or contains NaN or infinity, or the
            dimensions differ.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> round(kernel_distance(x, x + 3.0).value.item(), 4)
        4662.3333
    """
    real, fake = check_pair(real, fake)
    function = Kernel(kernel, degree, gamma, coef0, sigma)
    if subsets is None:
        return exact_distance(real, fake, function, memory=memory)
    return subset_distance(real, fake, function, subsets=subsets, subset_size=subset_size, seed=seed)


def cmmd(
    real: Tensor,
    fake: Tensor,
    *,
    sigma: float = 10.0,
    scale: float = 1000.0,
    unbiased: bool = False,
    memory: int = MEMORY,
) -> Tensor:
    """CLIP maximum mean discrepancy of Jayasumana et al. 2024 (arXiv:2401.09603); lower is better.

    ``scale`` times the squared maximum mean discrepancy with the kernel ``exp(-|x - y|² / (2 sigma²))``. As published
    it is biased: the pairs of a row with itself count, so it is above 0 for equal distributions and falls with the
    number of rows. It is defined on CLIP ViT-L/14@336 embeddings of length 1. Agrees with the reference
    implementation in float64; float32 leaves two or three digits.

    Args:
        real: Features (N, D) with rows of length 1, any floating dtype, any device.
        fake: Features (M, D), likewise.
        sigma: Bandwidth.
        scale: Factor.
        unbiased: Whether to leave out the pairs of a row with itself.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        Scalar float64 tensor, at least 0 up to rounding where it is biased.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set has fewer than 2 rows or contains NaN or infinity, or
            the dimensions differ.

    Example:
        >>> import torch
        >>> x = torch.eye(3)
        >>> round(cmmd(x, x.flip(0)).item(), 6), round(cmmd(x[:2], x[1:]).item(), 6)
        (0.0, 4.975083)
    """
    real, fake = check_pair(real, fake)
    kernel = Kernel("rbf", sigma=sigma)
    xx, yy = within_sums(real, kernel, memory=memory), within_sums(fake, kernel, memory=memory)
    xy = between_sums(real, fake, kernel, memory=memory)
    return scale * _discrepancy(xx, yy, xy, unbiased=unbiased)


def exact_distance(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel,
    *,
    unbiased: bool = True,
    real_sums: Sums | None = None,
    share: Share | None = None,
    memory: int = MEMORY,
) -> KernelDistance:
    """The statistic over all rows and its standard error.

    Args:
        real: Features (N, D).
        fake: Features (M, D).
        kernel: The kernel function.
        unbiased: Whether pairs of a row with itself are left out.
        real_sums: ``within_sums(real, kernel)`` if it is known already.
        share: This process's share of the tiles.
        memory: Bytes that the tiles may take.
    """
    if min(len(real), len(fake)) < 3:
        raise ValueError(
            f"The kernel distance needs at least 3 rows a set, but got {len(real)} real and {len(fake)} fake."
        )
    xx = within_sums(real, kernel, share, memory) if real_sums is None else real_sums
    yy = within_sums(fake, kernel, share, memory)
    xy = between_sums(real, fake, kernel, share, memory)
    return KernelDistance(_discrepancy(xx, yy, xy, unbiased=unbiased), _standard_error(xx, yy, xy))


def _discrepancy(xx: Sums, yy: Sums, xy: Sums, *, unbiased: bool) -> Tensor:
    n, m = len(xy.rows), len(xy.columns)
    between = 2 * xy.rows.sum() / (n * m)
    if unbiased:
        return xx.rows.sum() / (n * (n - 1)) + yy.rows.sum() / (m * (m - 1)) - between
    return xx.rows.sum() / n**2 + yy.rows.sum() / m**2 - between  # the diagonals are 0 for the rbf kernel minus 1


def _standard_error(xx: Sums, yy: Sums, xy: Sums) -> Tensor:
    """Standard error of the U-statistic over draws of both sets.

    The jackknife (the statistic without a row follows from the sums) counts twice what stems from pairs, which is all
    there is where the distributions are equal; so that part, the variance of the doubly centred kernel, is taken off
    once.
    """
    n, m = len(xy.rows), len(xy.columns)
    total_xx, total_yy, total_xy = xx.rows.sum(), yy.rows.sum(), xy.rows.sum()
    without_x = (total_xx - 2 * xx.rows) / ((n - 1) * (n - 2)) - 2 * (total_xy - xy.rows) / ((n - 1) * m)
    without_y = (total_yy - 2 * yy.rows) / ((m - 1) * (m - 2)) - 2 * (total_xy - xy.columns) / (n * (m - 1))
    jackknife = (n - 1) * without_x.var(correction=0) + (m - 1) * without_y.var(correction=0)
    pairs = torch.zeros_like(jackknife)
    for sums, count in ((xx, n), (yy, m)):
        means = sums.rows / (count - 1)
        centred = sums.squares - count * (count - 1) * means.mean().square()
        rest = centred - 2 * count * (means - means.mean()).square().sum()
        pairs += 2 * rest / (count * (count - 1)) ** 2
    rows, columns = xy.rows / m, xy.columns / n
    centred = xy.squares - n * m * rows.mean().square()
    rest = centred - m * (rows - rows.mean()).square().sum() - n * (columns - columns.mean()).square().sum()
    pairs += 4 * rest / (n * m) ** 2
    return torch.maximum(jackknife - pairs, jackknife / 2).sqrt()


def within_sums(features: Tensor, kernel: Kernel, share: Share | None = None, memory: int = MEMORY) -> Sums:
    """Sums of the kernel matrix of a set (N, D) with itself, the diagonal left out."""
    share = share or Share()
    count = len(features)
    sums = torch.zeros(count + 1, dtype=torch.float64, device=features.device)
    side = tile_size(features.shape[1], memory)
    cuts = list(tiles(range(count), side))
    upper = [(rows, columns) for i, rows in enumerate(cuts) for columns in cuts[i:]]  # the matrix is symmetric
    mine = share.rows(len(upper))
    for rows, columns, block in _blocks(features, features, upper[mine.start : mine.stop], kernel, side):
        if rows == columns:
            block.fill_diagonal_(0)
        else:
            sums[columns] += block.sum(dim=0)
        sums[rows] += block.sum(dim=1)
        sums[-1] += (1 if rows == columns else 2) * _squares(block)
    sums = share.total(sums)
    return Sums(sums[:-1], sums[:-1], sums[-1])


def between_sums(real: Tensor, fake: Tensor, kernel: Kernel, share: Share | None = None, memory: int = MEMORY) -> Sums:
    """Sums of the kernel matrix of real (N, D) against fake rows (M, D)."""
    share = share or Share()
    n, m = len(real), len(fake)
    sums = torch.zeros(n + m + 1, dtype=torch.float64, device=real.device)
    side = tile_size(real.shape[1], memory)
    pairs = [(rows, columns) for rows in tiles(share.rows(m), side) for columns in tiles(range(n), side)]
    for rows, columns, block in _blocks(fake, real, pairs, kernel, side):
        sums[columns] += block.sum(dim=0)
        sums[n : n + m][rows] += block.sum(dim=1)
        sums[-1] += _squares(block)
    sums = share.total(sums)
    return Sums(sums[:n], sums[n:-1], sums[-1])


def _squares(block: Tensor) -> Tensor:
    flat = block.view(-1)
    return torch.dot(flat, flat)


def _blocks(
    x: Tensor, y: Tensor, pairs: list[tuple[slice, slice]], kernel: Kernel, side: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles of the kernel matrix of ``x`` (rows) against ``y`` (columns); each overwrites the one before."""
    origin = kernel.origin(y)
    x_space, y_space = (origin.new_empty(min(side, len(rows)), rows.shape[1]) for rows in (x, y))
    space = origin.new_empty(len(x_space) * len(y_space))
    loaded = None
    for rows, columns in pairs:
        n, m = rows.stop - rows.start, columns.stop - columns.start
        if rows != loaded:
            x_space[:n].copy_(x[rows]).sub_(origin)
            loaded = rows
        y_space[:m].copy_(y[columns]).sub_(origin)
        yield rows, columns, kernel(x_space[:n], y_space[:m], out=space[: n * m].view(n, m))


def subset_distance(
    real: Tensor, fake: Tensor, kernel: Kernel, *, subsets: int, subset_size: int, seed: int
) -> KernelDistance:
    """Mean and spread of the U-statistic over random subsets of equal size."""
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"`subsets` must be >= 1 and `subset_size` >= 2, but got {subsets} and {subset_size}.")
    if subset_size > min(len(real), len(fake)):
        raise ValueError(
            f"`subset_size={subset_size}` exceeds the smaller set ({len(real)} real and {len(fake)} fake rows). "
            "Choose a smaller one, or `subsets=None` for the exact statistic."
        )
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        y = fake[torch.from_numpy(draw.choice(len(fake), subset_size, replace=False)).to(fake.device)].double()
        x = real[torch.from_numpy(draw.choice(len(real), subset_size, replace=False)).to(real.device)].double()
        x, y = x - kernel.origin(x), y - kernel.origin(x)
        xx, yy = kernel(x, x), kernel(y, y)
        within = xx.sum() - xx.diagonal().sum() + yy.sum() - yy.diagonal().sum()
        values.append(within / (subset_size * (subset_size - 1)) - 2 * kernel(x, y).mean())
    stacked = torch.stack(values)
    return KernelDistance(stacked.mean(), stacked.std(correction=0))
