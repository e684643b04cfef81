import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_synthqual.metrics import frechet, kernel, neighbors
from lightning_synthqual.metrics.families import BothSets, Family
from lightning_synthqual.metrics.kernel import Kernel, within_sums
from lightning_synthqual.metrics.names import CATALOGUE, complete_options
from lightning_synthqual.metrics.neighbors import squared_radii
from lightning_synthqual.metrics.share import Share, tile_size, tiles

Cloud = Callable[..., Tensor]
InShares = Callable[[int, Callable[[Share], Any]], list[Any]]

law = settings(derandomize=True, deadline=None)

FAMILIES = {entry.family.name: entry.family for entry in CATALOGUE.values() if isinstance(entry.family, Family)}


def score(family: Family, real: Tensor, fake: Tensor, share: Share) -> dict[str, float]:
    """Everything a family computes, the reference included, as one process does it."""
    options = complete_options(None)[family.name]
    reference = BothSets(real, real.flip(0) + 0.1) if family.needs_both else real
    state = family.prepare(reference, options, share)
    found = family.score(reference, state, fake, options, share)
    return {
        f"{name} {place}": number
        for name, values in found.items()
        for place, number in enumerate(values.flatten().tolist())
    }


@law
@given(count=st.integers(0, 50), world_size=st.integers(1, 9))
def test_rows_are_dealt_out_once_in_order_and_evenly(count: int, world_size: int) -> None:
    shares = [Share(rank, world_size).rows(count) for rank in range(world_size)]
    assert list(chain.from_iterable(shares)) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@law
@given(start=st.integers(0, 20), length=st.integers(0, 30), size=st.integers(1, 12))
def test_tiles_cover_the_rows_in_order(start: int, length: int, size: int) -> None:
    rows = range(start, start + length)
    slices = list(tiles(rows, size))
    assert [row for s in slices for row in range(s.start, s.stop)] == list(rows)
    assert all(s.stop - s.start == size for s in slices[:-1])
    assert all(1 <= s.stop - s.start <= size for s in slices)


@law
@given(columns=st.integers(1, 5000), memory=st.integers(2**16, 2**30))
def test_tiles_fit_the_memory(columns: int, memory: int) -> None:
    if (1 + 2 * columns) * 8 > memory:
        with pytest.raises(ValueError, match=f"`memory` of {memory} bytes is too little for rows of {columns} columns"):
            tile_size(columns, memory)
        return
    side = tile_size(columns, memory)
    assert 8 * (side**2 + 2 * side * columns) <= memory < 8 * ((side + 9) ** 2 + 2 * (side + 9) * columns)
    assert side % 8 == 0 or side < 8


def test_alone_a_share_is_everything() -> None:
    rows = torch.arange(3.0)
    assert Share().rows(7) == range(7)
    assert Share().total(rows) is rows


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("n", "m", "dimension"), [(101, 67, 8), (101, 5, 8), (5, 67, 8), (7, 5, 8)])
def test_any_number_of_processes_gives_the_number_of_one(
    cloud: Cloud,
    in_shares: InShares,
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    world_size: int,
    n: int,
    m: int,
    dimension: int,
) -> None:
    if min(n, m) < family.min_rows(family.options):
        pytest.skip("too few rows for this family")
    real, fake = cloud(0, n, dimension), cloud(1, m, dimension, centre=0.6)
    expected = score(family, real, fake, Share())
    monkeypatch.setattr(frechet, "_ROWS", 11)
    for module in (kernel, neighbors):
        monkeypatch.setattr(module, "tile_size", lambda *_: 11)
    scores = in_shares(world_size, partial(score, family, real, fake))
    assert len(scores) == world_size
    for found in scores:
        assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert found == pytest.approx(scores[0], rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("name", ["fid", "kid", "kid_rbf", "cmmd", "precision", "density", "fid50k"])
def test_preparing_the_reference_is_divided(cloud: Cloud, name: str) -> None:
    family = FAMILIES[name]
    parts: list[Tensor] = []

    def remember(part: Tensor) -> Tensor:
        parts.append(part)
        return part

    family.prepare(cloud(0, 20, 3), complete_options(None)[name], Share(0, 2, remember))
    assert len(parts) == 1


def test_more_processes_than_rows(cloud: Cloud, in_shares: InShares) -> None:
    real, fake = cloud(0, 5, 3), cloud(1, 4, 3, centre=0.5)
    for family in FAMILIES.values():
        if family.min_rows(family.options) > 4:
            continue
        expected = score(family, real, fake, Share())
        for found in in_shares(7, partial(score, family, real, fake)):
            assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_process_works_on_its_own_tiles_only(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    features = cloud(0, 11, 3)
    monkeypatch.setattr(kernel, "tile_size", lambda *_: 4)
    parts = [within_sums(features, Kernel(), Share(rank, 3)).rows for rank in range(3)]
    whole = within_sums(features, Kernel()).rows
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0.0)
    assert all(0 < part.sum() < 0.7 * whole.sum() for part in parts)


def test_a_process_works_on_its_own_rows_only(cloud: Cloud) -> None:
    features = cloud(0, 11, 3)
    part, whole = squared_radii(features, 3, Share(1, 3)), squared_radii(features, 3)
    own = Share(1, 3).rows(11)
    torch.testing.assert_close(part[own.start : own.stop], whole[own.start : own.stop], rtol=1e-12, atol=0.0)
    assert part.count_nonzero() == len(own)


def test_moments_are_taken_of_the_own_rows_only(cloud: Cloud) -> None:
    """Without the others' sums, one process of two knows about half of the covariance."""
    seen: list[Tensor] = []

    def remember(part: Tensor) -> Tensor:
        seen.append(part)
        return part

    features = cloud(0, 11, 3)
    for rank in range(2):
        frechet.fit_gaussian(features, Share(rank, 2, remember))
    centred = features - features[0]
    torch.testing.assert_close(seen[0][0], centred[:5].sum(dim=0))
    torch.testing.assert_close(seen[1][0], centred[5:].sum(dim=0))
    torch.testing.assert_close(seen[0][1:] + seen[1][1:], centred.T @ centred)


@pytest.mark.slow
@pytest.mark.parametrize(
    "work",
    [
        "kernel_distance(real, fake)",
        "cmmd(real, fake)",
        "precision_recall(real, fake)",
        "density_coverage(real, fake)",
        "nearest_neighbors(fake, real, k=3)",
        "authenticity(real, fake)",
    ],
)
def test_memory_does_not_grow_with_the_square_of_the_rows(work: str) -> None:
    """20000 x 20000 numbers alone would be 1526 MiB."""
    code = f"""
import resource
import torch
from lightning_synthqual.metrics import *
torch.set_num_threads(1)
real, fake = torch.randn(20_000, 128), torch.randn(20_000, 128) + 0.1
{work.replace("real", "real[:500]").replace("fake", "fake[:500]")}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{work}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 256
