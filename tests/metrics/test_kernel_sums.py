"""Sums of kernel matrices: those of many pairs come from float32 products, and agree with float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerator import accelerator
from torch import Tensor

from lightning_synthqual.metrics import kernel_sums
from lightning_synthqual.metrics.kernel import exact_distance
from lightning_synthqual.metrics.kernel_sums import Kernel, Sums, between_sums, within_sums
from lightning_synthqual.metrics.shard import Shard

ROWS, COLUMNS = (150, 130), 96


def inception(seed: int, count: int, columns: int = COLUMNS) -> Tensor:
    """Rows like those of the network: none is negative, and some directions are strong."""
    directions = torch.randn(16, columns, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    strong = 0.1 * torch.randn(count, 16, generator=draw) @ directions
    return (strong + 0.2 + 0.3 * torch.randn(count, columns, generator=draw)).relu()


SETS = {
    "inception": lambda seed, count: inception(seed, count),
    "far from the origin": lambda seed, count: inception(seed, count) + 5.0,
    "collapsed": lambda seed, count: inception(1, 1) + 1e-3 * inception(seed, count),
    "half precision": lambda seed, count: inception(seed, count).half(),
    "constant": lambda seed, count: torch.full((count, COLUMNS), 0.5),
}


def all_sums(real: Tensor, fake: Tensor, kernel: Kernel, **arguments: Any) -> list[Sums]:
    within = [within_sums(rows, kernel, **arguments) for rows in (real, fake)]
    return [*within, between_sums(real, fake, kernel, **arguments)]


def exact(real: Tensor, fake: Tensor, kernel: Kernel) -> list[Sums]:
    """The sums of whole matrices."""
    real, fake = real.double(), fake.double()
    matrices = [kernel(x, y) for x, y in ((real, real), (fake, fake), (real, fake))]
    for matrix in matrices[:2]:
        matrix.fill_diagonal_(0)
    return [Sums(matrix.sum(dim=1), matrix.sum(dim=0), matrix.square().sum()) for matrix in matrices]


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Few pairs count as many; the precision of each product."""
    used: list[torch.dtype] = []
    product = torch.mm

    def watched(x: Tensor, y: Tensor, *, out: Tensor | None) -> Tensor:
        used.extend([] if out is None else [out.dtype])  # none where the test itself makes a whole matrix
        return product(x, y, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    monkeypatch.setattr(kernel_sums, "_MANY", 1)
    monkeypatch.setattr(kernel_sums, "_ROWS", 40)
    return used


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("kernel", [Kernel(), Kernel(gamma=0.02, coef0=0.7)], ids=["kid", "other"])
@pytest.mark.parametrize("tile", [17, 1000])
def test_float32_products_give_the_sums_of_float64(
    products: list[torch.dtype], monkeypatch: pytest.MonkeyPatch, kind: str, kernel: Kernel, tile: int
) -> None:
    monkeypatch.setattr(kernel_sums, "tile_size", lambda *_: tile)
    monkeypatch.setattr(kernel_sums, "_CACHED", 5 * tile)
    real, fake = (SETS[kind](seed, count) for seed, count in enumerate(ROWS, start=1))
    for found, expected in zip(all_sums(real, fake, kernel), exact(real, fake, kernel), strict=True):
        scale = expected.rows.abs().max().item()
        torch.testing.assert_close(found.rows, expected.rows, rtol=0.0, atol=1e-8 * scale)
        torch.testing.assert_close(found.columns, expected.columns, rtol=0.0, atol=1e-8 * scale)
        torch.testing.assert_close(found.rows.sum(), expected.rows.sum(), rtol=1e-9, atol=0.0)
        torch.testing.assert_close(found.squares, expected.squares, rtol=1e-6, atol=0.0)
    assert set(products) == {torch.float32}


def test_the_exact_kid_is_that_of_float64(products: list[torch.dtype]) -> None:
    real, fake = (inception(seed, 500, 2048) for seed in (1, 2))
    found, error = exact_distance(real, fake, Kernel())
    assert set(products) == {torch.float32}
    expected, expected_error = exact_distance(real.double(), fake.double(), Kernel())
    assert 0.3 < float(real.mean()) < 0.5
    assert found.value.item() == pytest.approx(expected.value.item(), rel=0, abs=1e-10)
    assert error.item() == pytest.approx(expected_error.item(), rel=1e-5)
    spread = expected.fake.std()
    torch.testing.assert_close(found.fake / spread, expected.fake / spread, rtol=0.0, atol=1e-5)


def test_what_float32_cannot_hold_is_summed_in_float64(products: list[torch.dtype]) -> None:
    real, fake = (1e6 * inception(seed, count) for seed, count in enumerate(ROWS))
    for found, expected in zip(all_sums(real, fake, Kernel()), exact(real, fake, Kernel()), strict=True):
        torch.testing.assert_close(found.rows, expected.rows, rtol=1e-12, atol=0.0)
    assert set(products) == {torch.float64}


@pytest.mark.parametrize("kernel", [Kernel("rbf"), Kernel(degree=2), Kernel()], ids=["rbf", "square", "float64 rows"])
def test_all_else_is_summed_in_float64(products: list[torch.dtype], kernel: Kernel) -> None:
    rows = inception(0, 20).to(torch.float64 if kernel == Kernel() else torch.float32)
    within_sums(rows, kernel)
    assert set(products) == {torch.float64}


def test_few_pairs_are_summed_in_float64(products: list[torch.dtype], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_sums, "_MANY", 401)
    within_sums(inception(0, 20), Kernel())
    assert set(products) == {torch.float64}


@pytest.mark.usefixtures("products")
def test_any_number_of_processes_gives_the_sums_of_one(
    in_shards: Callable[[int, Callable[[Shard], Any]], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_sums, "tile_size", lambda *_: 40)
    real, fake = (inception(seed, count) for seed, count in enumerate(ROWS))
    expected = all_sums(real, fake, Kernel())
    for found in in_shards(3, lambda shard: all_sums(real, fake, Kernel(), shard=shard)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-9, atol=0.0)


@pytest.mark.usefixtures("products")
def test_the_host_waits_once_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_sums, "tile_size", lambda *_: 40)
    real, fake = (inception(seed, count) for seed, count in enumerate(ROWS))
    expected = all_sums(real, fake, Kernel())
    with torch.no_grad(), accelerator() as log:
        moved = real.cuda(), fake.cuda()
        log.clear()
        found = all_sums(*moved, Kernel())
        assert log.synchronizations == 3
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.rows.cpu(), other.rows, rtol=1e-9, atol=0.0)
