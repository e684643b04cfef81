"""Kernel functions, and sums of kernel matrices by tiles, which never exist as a whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.shard import MEMORY, Shard, tile_size, tiles

KernelName = Literal["polynomial", "rbf"]


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
        """What to subtract from all rows (D,): where only differences count, a far-off mean must cost no digits."""
        return features[0].double() if self.name == "rbf" else features.new_zeros((), dtype=torch.float64)


def within_sums(features: Tensor, kernel: Kernel, shard: Shard | None = None, memory: int = MEMORY) -> Sums:
    """Sums of the kernel matrix of a set (N, D) with itself, the diagonal left out."""
    shard = shard or Shard()
    count = len(features)
    sums = torch.zeros(count + 1, dtype=torch.float64, device=features.device)
    side = tile_size(features.shape[1], memory)
    cuts = list(tiles(range(count), side))
    upper = [(rows, columns) for i, rows in enumerate(cuts) for columns in cuts[i:]]  # the matrix is symmetric
    mine = shard.rows(len(upper))
    for rows, columns, block in _blocks(features, features, upper[mine.start : mine.stop], kernel, side):
        if rows == columns:
            block.fill_diagonal_(0)
        else:
            sums[columns] += block.sum(dim=0)
        sums[rows] += block.sum(dim=1)
        sums[-1] += (1 if rows == columns else 2) * _squares(block)
    sums = shard.total(sums)
    return Sums(sums[:-1], sums[:-1], sums[-1])


def between_sums(real: Tensor, fake: Tensor, kernel: Kernel, shard: Shard | None = None, memory: int = MEMORY) -> Sums:
    """Sums of the kernel matrix of real (N, D) against fake rows (M, D)."""
    shard = shard or Shard()
    n, m = len(real), len(fake)
    sums = torch.zeros(n + m + 1, dtype=torch.float64, device=real.device)
    side = tile_size(real.shape[1], memory)
    pairs = [(rows, columns) for rows in tiles(shard.rows(m), side) for columns in tiles(range(n), side)]
    for rows, columns, block in _blocks(fake, real, pairs, kernel, side):
        sums[columns] += block.sum(dim=0)
        sums[n : n + m][rows] += block.sum(dim=1)
        sums[-1] += _squares(block)
    sums = shard.total(sums)
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
