"""Kernel distances: squared maximum mean discrepancy between two feature sets."""

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.kernel_sums import Kernel, KernelName, Sums, between_sums, within_sums
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.published import Published
from lightning_synthqual.metrics.shard import MEMORY, Shard


class KernelDistance(NamedTuple):
    """A kernel distance and its standard deviation, float64 scalars.

    ``std`` is the standard error of ``value`` for the full-sample statistic, and the spread over the subsets for the
    subset estimator (what implementations of KID print).

    Attributes:
        value: The squared maximum mean discrepancy; unbiased ones may be below 0.
        std: Standard error as above, at least 0.

    Example:
        >>> import torch
        >>> distance = kernel_distance(torch.zeros(10, 2), torch.ones(10, 2))
        >>> distance.value.item(), distance.std.item()
        (7.0, 0.0)
    """

    value: Tensor
    std: Tensor


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
        degree: Degree of the polynomial.
        gamma: Factor of the polynomial; ``None``: 1 / D.
        coef0: Constant of the polynomial.
        sigma: Bandwidth of the rbf kernel.
        subsets: Number of subsets, or ``None`` for the exact statistic.
        subset_size: Rows in a subset.
        seed: Random seed of the subsets.
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
        influence, std = exact_distance(real, fake, function, memory=memory)
        return KernelDistance(influence.value, std)
    return subset_distance(real, fake, function, subsets=subsets, subset_size=subset_size, seed=seed)


def kernel_influence(
    real: Tensor,
    fake: Tensor,
    *,
    kernel: KernelName = "polynomial",
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    sigma: float = 10.0,
    memory: int = MEMORY,
) -> Influence:
    """What each row adds to the exact, unbiased kernel distance of two feature sets.

    ``M - 1`` times what leaving the row out takes from the U-statistic (the jackknife), which is exact up to a
    constant; in the limit twice the row's mean kernel with its own set less that with the other. The standard error
    ``std`` of what is returned counts twice what stems from pairs of rows, which an evaluation takes off once: where
    the distributions are equal that is all there is.

    Args:
        real: Features (N, D), any floating dtype, any device; N >= 3.
        fake: Features (M, D), M >= 3.
        kernel: Kernel function, as in ``kernel_distance``.
        degree: Degree of the polynomial.
        gamma: Factor of the polynomial; ``None``: 1 / D.
        coef0: Constant of the polynomial.
        sigma: Bandwidth of the rbf kernel.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        The distance, and the influences of the generated (M,) and of the real rows (N,); float64.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: As ``kernel_distance`` raises it.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> found = kernel_influence(x, x + 2.0, degree=1)
        >>> round(found.value.item(), 4), [round(each, 4) for each in found.fake.tolist()]
        (3.3333, [-4.6667, 1.3333, 3.3333])
    """
    real, fake = check_pair(real, fake)
    return exact_distance(real, fake, Kernel(kernel, degree, gamma, coef0, sigma), memory=memory)[0]


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
        fake: Features (M, D), with unit rows too.
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
    shard: Shard | None = None,
    memory: int = MEMORY,
) -> tuple[Influence, Tensor]:
    """The statistic over all rows with their influences, and its standard error over draws of both sets.

    The influences are those of the unbiased statistic, from which those of the biased one differ by a share of 1 / N.

    Args:
        real: Features (N, D).
        fake: Features (M, D).
        kernel: The kernel function.
        unbiased: Whether pairs of a row with itself are left out.
        real_sums: ``within_sums(real, kernel)`` if it is known already.
        shard: This process's shard of the tiles.
        memory: Bytes that the tiles may take.
    """
    if min(len(real), len(fake)) < 3:
        raise ValueError(
            f"The kernel distance needs at least 3 rows a set, but got {len(real)} real and {len(fake)} fake."
        )
    xx = within_sums(real, kernel, shard, memory) if real_sums is None else real_sums
    yy = within_sums(fake, kernel, shard, memory)
    xy = between_sums(real, fake, kernel, shard, memory)
    influence = Influence(_discrepancy(xx, yy, xy, unbiased=unbiased), *_influences(xx, yy, xy))
    first_order = influence.std.square()
    return influence, torch.maximum(first_order - _from_pairs(xx, yy, xy), first_order / 2).sqrt()


def _discrepancy(xx: Sums, yy: Sums, xy: Sums, *, unbiased: bool) -> Tensor:
    n, m = len(xy.rows), len(xy.columns)
    between = 2 * xy.rows.sum() / (n * m)
    if unbiased:
        return xx.rows.sum() / (n * (n - 1)) + yy.rows.sum() / (m * (m - 1)) - between
    return xx.rows.sum() / n**2 + yy.rows.sum() / m**2 - between  # the diagonals are 0 for the rbf kernel minus 1


def _influences(xx: Sums, yy: Sums, xy: Sums) -> tuple[Tensor, Tensor]:
    """Influences of the generated and of the real rows: the statistic without a row follows from the sums."""
    total = xy.rows.sum()
    without_fake, without_real = (
        (own.rows.sum() - 2 * own.rows) / ((len(own.rows) - 1) * (len(own.rows) - 2))
        - 2 * (total - between) / ((len(own.rows) - 1) * others)
        for own, between, others in ((yy, xy.columns, len(xy.rows)), (xx, xy.rows, len(xy.columns)))
    )
    fake, real = (-(len(without) - 1) * (without - without.mean()) for without in (without_fake, without_real))
    return fake, real


def _from_pairs(xx: Sums, yy: Sums, xy: Sums) -> Tensor:
    """Variance of the U-statistic that stems from pairs of rows, which the jackknife counts twice.

    It is that of the doubly centred kernel, which is all there is where the distributions are equal.
    """
    n, m = len(xy.rows), len(xy.columns)
    pairs = torch.zeros_like(xy.squares)
    for sums, count in ((xx, n), (yy, m)):
        means = sums.rows / (count - 1)
        centred = sums.squares - count * (count - 1) * means.mean().square()
        rest = centred - 2 * count * (means - means.mean()).square().sum()
        pairs += 2 * rest / (count * (count - 1)) ** 2
    rows, columns = xy.rows / m, xy.columns / n
    centred = xy.squares - n * m * rows.mean().square()
    rest = centred - m * (rows - rows.mean()).square().sum() - n * (columns - columns.mean()).square().sum()
    return pairs + 4 * rest / (n * m) ** 2


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


class SummedRows(NamedTuple):
    """Features (N, D) and the sums of their kernel matrix, where a distance needs them."""

    rows: Tensor
    sums: Sums | None


_SUBSETS: Options = {
    "subsets": option(None, kind=int, low=1),
    "subset_size": option(1000, low=2),
    "seed": option(0, low=0, high=2**32 - 1),
}


class PolynomialDistance(Metric):
    """Kernel distance with the polynomial kernel; see the function ``kernel_distance``."""

    family = "kid"
    direction = "min"
    floor = "all"
    gap = True
    OPTIONS: ClassVar[Options] = {
        "degree": option(3, low=1),
        "gamma": option(None, kind=float, above=0),
        "coef0": option(1.0),
        **_SUBSETS,
    }

    def kernel(self) -> Kernel:
        """The kernel function."""
        return Kernel("polynomial", self.options["degree"], self.options["gamma"], self.options["coef0"])

    def min_images(self) -> int:
        """As many as a subset has; three for the exact statistic."""
        return 3 if self.options["subsets"] is None else int(self.options["subset_size"])

    def prepare(self, real: Tensor) -> SummedRows:
        """Sum the kernel matrix of the reference."""
        exact = self.options["subsets"] is None
        return SummedRows(real, within_sums(real, self.kernel(), self.runtime.shard) if exact else None)

    def score(self, state: SummedRows, fake: Tensor) -> Score:
        """The distance, its standard error and the influence of each row; for subsets their spread alone."""
        if self.options["subsets"] is None:
            shard = self.runtime.shard
            influence, std = exact_distance(state.rows, fake, self.kernel(), real_sums=state.sums, shard=shard)
            return Score(influence.value, std, influence)
        drawing: dict[str, Any] = {key: self.options[key] for key in _SUBSETS}
        return Score(*subset_distance(state.rows, fake, self.kernel(), **drawing))


class RbfDistance(PolynomialDistance):
    """Kernel distance with the Gaussian kernel."""

    family = "kid_rbf"
    OPTIONS: ClassVar[Options] = {"sigma": option(10.0, above=0), **_SUBSETS}

    def kernel(self) -> Kernel:
        """The kernel function."""
        return Kernel("rbf", sigma=self.options["sigma"])


class ClipDiscrepancy(Metric):
    """CLIP maximum mean discrepancy; see the function ``cmmd``."""

    family = "cmmd"
    direction = "min"
    floor = "same number"
    gap = True
    OPTIONS: ClassVar[Options] = {
        "sigma": option(10.0, above=0),
        "scale": option(1000.0, above=0),
        "unbiased": option(False),
    }

    def kernel(self) -> Kernel:
        """The kernel function."""
        return Kernel("rbf", sigma=self.options["sigma"])

    def min_images(self) -> int:
        """Three, for the standard error."""
        return 3

    def prepare(self, real: Tensor) -> SummedRows:
        """Sum the kernel matrix of the reference."""
        return SummedRows(real, within_sums(real, self.kernel(), self.runtime.shard))

    def score(self, state: SummedRows, fake: Tensor) -> Score:
        """The discrepancy, its standard error and the influence of each row."""
        unbiased, scale = self.options["unbiased"], self.options["scale"]
        found, std = exact_distance(
            state.rows, fake, self.kernel(), unbiased=unbiased, real_sums=state.sums, shard=self.runtime.shard
        )
        influence = Influence(*(scale * part for part in found))
        return Score(influence.value, scale * std, influence)


class Kid50kFull(Metric):
    """StyleGAN's ``kid50k_full``: 100 subsets of at most 1000; the error is their spread, as it is printed."""

    family = "kid50k_full"
    direction = "min"
    published = Published(50_000, max_real=1_000_000)

    def score(self, state: Tensor, fake: Tensor) -> Score:
        """The distance and the spread over subsets."""
        size = min(len(state), len(fake), 1000)
        return Score(*subset_distance(state, fake, Kernel(), subsets=100, subset_size=size, seed=0))
