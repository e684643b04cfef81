"""Kernel functions, and sums of kernel matrices by tiles, which never exist as a whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.shard import MEMORY, Shard, tile_size, tiles
from lightning_synthqual.precision import full_precision

KernelName = Literal["polynomial", "rbf"]
_MANY = 2**22  # pairs of rows whose rounding errors, which differ in sign, leave nothing of themselves in a mean
_CACHED = 2**17  # numbers of one strip of a tile: it stays in a processor's cache
_ROWS = 256  # rows that are converted to float64 at once


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
    work = _summing(features, features, kernel, memory)
    cuts = list(tiles(range(count), work.side))
    upper = [(rows, columns) for i, rows in enumerate(cuts) for columns in cuts[i:]]  # the matrix is symmetric
    mine = shard.rows(len(upper))
    for rows, columns in upper[mine.start : mine.stop]:
        tile = work(rows, columns, diagonal=rows == columns)
        sums[rows] += tile.rows
        if rows != columns:
            sums[columns] += tile.columns
        sums[-1] += (1 if rows == columns else 2) * tile.squares
    sums = shard.total(sums)
    each = sums[:-1] + work.known[0]
    return Sums(each, each, sums[-1])


def between_sums(real: Tensor, fake: Tensor, kernel: Kernel, shard: Shard | None = None, memory: int = MEMORY) -> Sums:
    """Sums of the kernel matrix of real (N, D) against fake rows (M, D)."""
    shard = shard or Shard()
    n, m = len(real), len(fake)
    sums = torch.zeros(n + m + 1, dtype=torch.float64, device=real.device)
    work = _summing(fake, real, kernel, memory)
    for rows in tiles(shard.rows(m), work.side):
        for columns in tiles(range(n), work.side):
            tile = work(rows, columns)
            sums[columns] += tile.columns
            sums[n : n + m][rows] += tile.rows
            sums[-1] += tile.squares
    sums = shard.total(sums)
    return Sums(sums[:n] + work.known[1], sums[n:-1] + work.known[0], sums[-1])


def _summing(x: Tensor, y: Tensor, kernel: Kernel, memory: int) -> "_Whole | _Cubes":
    """What gives the sums of tiles, whose rows are of ``x``, their columns of ``y``."""
    if x.device.type == "cuda" and memory == MEMORY:
        memory *= 4  # not what is free: processes divide the tiles, which have to be the same on each
    cubic = kernel.name == "polynomial" and kernel.degree == 3
    coarse = torch.float64 not in (x.dtype, y.dtype) and x.device.type in ("cpu", "cuda")
    if cubic and coarse and len(x) * len(y) >= _MANY:
        work = _Cubes(x, y, kernel, memory)
        if work.fits:
            return work
    return _Whole(x, y, kernel, memory)


class _Whole:
    """Sums of tiles in float64.

    Args:
        x: Features (N, D).
        y: Features (M, D).
        kernel: The kernel function.
        memory: Bytes that the tiles may take.

    Attributes:
        side: Most rows and columns of a tile.
        known: What the sums of rows and of columns have beside those of the tiles: nothing.
    """

    known = (0.0, 0.0)

    def __init__(self, x: Tensor, y: Tensor, kernel: Kernel, memory: int) -> None:
        self._kernel = kernel
        self.side = tile_size(x.shape[1], memory)
        origin = kernel.origin(y)
        self._x, self._y = (_Block(rows, origin, self.side, torch.float64) for rows in (x, y))
        self._space = origin.new_empty(self._x.size * self._y.size)

    def __call__(self, rows: slice, columns: slice, *, diagonal: bool = False) -> Sums:
        """The sums of a tile, without its diagonal if that is one of the whole matrix."""
        x, y = self._x(rows), self._y(columns)
        block = self._kernel(x, y, out=self._space[: len(x) * len(y)].view(len(x), len(y)))
        if diagonal:
            block.fill_diagonal_(0)
        flat = block.view(-1)
        return Sums(block.sum(dim=1), block.sum(dim=0), torch.dot(flat, flat))


class _Cubes:
    """Sums of tiles of a cubic kernel from float32 products, for many pairs of rows.

    Rows are centred: ``gamma x·y + coef0`` is ``w + q``, where ``w = a + b`` has a number of the row and one of the
    column, and ``q`` is ``gamma`` times the small product of what is left of both rows. Of the cube ``w³ + 3 w² q +
    (3 w + q) q²`` the first two terms are summed in float64 without any pair of rows, and only the third one, the
    smallest, pair by pair in float32. For rows like those of the Inception network means of the matrix differ by
    less than 1e-10 from those in float64.

    Args:
        x: Features (N, D).
        y: Features (M, D); the same tensor for the matrix of a set with itself.
        kernel: The kernel function, of degree 3.
        memory: Bytes that the tiles may take.

    Attributes:
        side: Most rows and columns of a tile.
        fits: Whether float32 holds the squares of the kernel's values.
        known: What the sums of rows (N,) and of columns (M,) have beside those of the tiles.
    """

    def __init__(self, x: Tensor, y: Tensor, kernel: Kernel, memory: int) -> None:
        self.side = tile_size(x.shape[1], memory * 3 // 2)  # of float32 numbers, which leaves a quarter for strips
        self._gamma = 1.0 / x.shape[1] if kernel.gamma is None else kernel.gamma
        of_x = _Centred(x)
        of_y = of_x if y is x else _Centred(y)
        (x_sizes, x_along), (y_sizes, y_along) = of_x.lengths(of_y.centre), of_y.lengths(of_x.centre)
        self._a = self._gamma * (x_along + of_x.centre.double().dot(of_y.centre.double())) + kernel.coef0
        self._b = self._gamma * y_along
        longest = (x_sizes.max() * y_sizes.max()).sqrt()
        greatest = self._a.abs().max() + self._b.abs().max() + abs(self._gamma) * longest
        self.fits = bool(greatest < (torch.finfo(torch.float32).max / self.side**2) ** (1 / 6))
        a, b = self._a, self._b
        rows = _cubes(a, b) + 3 * self._gamma * of_x.weighted(of_y.moments(b), a)
        columns = rows if y is x else _cubes(b, a) + 3 * self._gamma * of_y.weighted(of_x.moments(a), b)
        if y is x:
            rows = rows - (a + b) ** 3 - 3 * (a + b) ** 2 * self._gamma * x_sizes
        self.known = rows, columns
        self._x, self._y = _Block(x, of_x.centre, self.side), _Block(y, of_y.centre, self.side)
        self._products = of_x.centre.new_empty(self._x.size * self._y.size)
        strip = self._x.size if x.device.type != "cpu" else max(1, _CACHED // self._y.size)
        self._strip = min(strip, self._x.size)
        self._spaces = self._products.new_empty(2, self._strip * self._y.size)

    def __call__(self, rows: slice, columns: slice, *, diagonal: bool = False) -> Sums:
        """The sums of a tile beside what is known; without its diagonal if that is one of the whole matrix."""
        x, y = self._x(rows), self._y(columns)
        products = self._products[: len(x) * len(y)].view(len(x), len(y))
        with full_precision(), torch.autocast(x.device.type, enabled=False):
            torch.mm(x, y.T, out=products)
        a, b = self._a[rows].float()[:, None], self._b[columns].float()
        sums = Sums(self._a.new_zeros(len(x)), self._a.new_zeros(len(y)), self._a.new_zeros(()))
        for part in tiles(range(len(x)), self._strip):
            self._add(sums, a[part], b, products[part].mul_(self._gamma), part, diagonal)
        return sums

    def _add(self, sums: Sums, a: Tensor, b: Tensor, q: Tensor, part: slice, diagonal: bool) -> None:
        """Add those of a strip of a tile."""
        rest, whole = (space[: q.numel()].view_as(q) for space in self._spaces)
        torch.add(a, b, out=rest)
        torch.add(rest, q, out=whole)
        rest.mul_(3).add_(q).mul_(q).mul_(q)
        if diagonal:
            rest.diagonal(part.start).zero_()
            whole.diagonal(part.start).zero_()
        sums.rows[part] = rest.sum(dim=1)
        sums.columns.add_(rest.sum(dim=0))
        squares = torch.mul(whole, whole, out=rest).mul_(whole).square_()
        sums.squares.add_(squares.sum(dim=1).sum(dtype=torch.float64))


class _Centred:
    """A set of rows less its mean, in float64, a part at a time.

    Args:
        rows: Features (N, D).

    Attributes:
        centre: The mean (D,), as float32: so it is subtracted exactly from float32 rows, and need not be exact itself.
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for part in self._parts():
            total += rows[part].double().sum(dim=0)
        self.centre = total.div_(len(rows)).float()

    def lengths(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Squared lengths (N,), and products (N,) with a direction (D,)."""
        sizes, along = torch.empty(2, len(self._rows), dtype=torch.float64, device=direction.device)
        for part in self._parts():
            block = self._part(part)
            along[part] = block @ direction.double()
            sizes[part] = block.square_().sum(dim=1)
        return sizes, along

    def moments(self, numbers: Tensor) -> Tensor:
        """The sums (3, D) of the rows, each times its number to the power of 0, 1 and 2."""
        powers = torch.stack([torch.ones_like(numbers), numbers, numbers**2])
        sums = numbers.new_zeros(3, self._rows.shape[1])
        for part in self._parts():
            sums += powers[:, part] @ self._part(part)
        return sums

    def weighted(self, moments: Tensor, numbers: Tensor) -> Tensor:
        """The sums (N,) of ``(number + other number)² row·other`` over the others of which the moments (3, D) are."""
        products = torch.cat([self._part(part) @ moments.T for part in self._parts()])
        return numbers**2 * products[:, 0] + 2 * numbers * products[:, 1] + products[:, 2]

    def _part(self, part: slice) -> Tensor:
        return self._rows[part].double() - self.centre

    def _parts(self) -> Iterator[slice]:
        return tiles(range(len(self._rows)), _ROWS)


class _Block:
    """Rows of a set, less a centre, converted a tile at a time into the same memory."""

    def __init__(self, rows: Tensor, centre: Tensor, side: int, dtype: torch.dtype = torch.float32) -> None:
        self.size = min(side, len(rows))
        self._rows, self._centre = rows, centre
        self._space = centre.new_empty(self.size, rows.shape[1], dtype=dtype)
        self._loaded: slice | None = None

    def __call__(self, part: slice) -> Tensor:
        """The rows of a tile."""
        block = self._space[: part.stop - part.start]
        if part != self._loaded:
            torch.sub(self._rows[part], self._centre, out=block)
            self._loaded = part
        return block


def _cubes(a: Tensor, b: Tensor) -> Tensor:
    """The sum of ``(a + b)³`` over all of ``b`` (M,), for each of ``a`` (N,)."""
    first, second, third = (b.pow(power).sum() for power in (1, 2, 3))
    return ((len(b) * a + 3 * first) * a + 3 * second) * a + third
