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

from lightning_synthqual.metrics import frechet, kernel_sums, neighbors
from lightning_synthqual.metrics.base import Metric, as_scores
from lightning_synthqual.metrics.catalogue import CATALOGUE
from lightning_synthqual.metrics.kernel_sums import Kernel, within_sums
from lightning_synthqual.metrics.memorization import RealNeighbors
from lightning_synthqual.metrics.neighbors import squared_radii
from lightning_synthqual.metrics.shard import Shard, tile_size, tiles
from lightning_synthqual.metrics.views import Runtime

Cloud = Callable[..., Tensor]
InShards = Callable[[int, Callable[[Shard], Any]], list[Any]]

law = settings(derandomize=True, deadline=None)

# One metric of each kind that reads features alone.
METRICS = {
    entry.metric.__name__: entry.metric
    for entry in CATALOGUE.values()
    if not (entry.metric.both_sets or entry.metric.needs_generator or entry.metric.reads_targets)
    if not entry.metric.reads_texts
}


def score(kind: type[Metric], real: Tensor, fake: Tensor, shard: Shard) -> dict[str, float]:
    """Everything that a metric computes, the reference included, as one process does it."""
    metric = kind("x", extractor="wavelet").with_runtime(Runtime(shard=shard))
    found: dict[str, float] = {}
    for name, each in as_scores(metric, metric.score(metric.prepare(real), fake)).values.items():
        found[name] = float(each.value)
        found[f"{name}_std"] = float("nan") if each.error is None else float(each.error)
    return found


@law
@given(count=st.integers(0, 50), world_size=st.integers(1, 9))
def test_rows_are_dealt_out_once_in_order_and_evenly(count: int, world_size: int) -> None:
    shards = [Shard(rank, world_size).rows(count) for rank in range(world_size)]
    assert list(chain.from_iterable(shards)) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


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


def test_alone_a_shard_is_everything() -> None:
    rows = torch.arange(3.0)
    assert Shard().rows(7) == range(7)
    assert Shard().total(rows) is rows


@pytest.mark.parametrize("kind", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(("world_size", "n", "m"), [(2, 101, 67), (3, 67, 101)])
def test_any_number_of_processes_gives_the_number_of_one(
    cloud: Cloud,
    in_shards: InShards,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Metric],
    world_size: int,
    n: int,
    m: int,
) -> None:
    real, fake = cloud(0, n, 8), cloud(1, m, 8, centre=0.6)
    expected = score(kind, real, fake, Shard())
    monkeypatch.setattr(frechet, "_ROWS", 11)
    for module in (kernel_sums, neighbors):
        monkeypatch.setattr(module, "tile_size", lambda *_: 11)
    scores = in_shards(world_size, partial(score, kind, real, fake))
    assert len(scores) == world_size
    for found in scores:
        assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert found == pytest.approx(scores[0], rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("kind", METRICS.values(), ids=METRICS)
def test_any_number_of_processes_gives_the_influences_of_one(
    cloud: Cloud, in_shards: InShards, kind: type[Metric], world_size: int
) -> None:
    real, fake = cloud(0, 101, 8), cloud(1, 67, 8, centre=0.6)

    def influences(shard: Shard) -> list[Tensor]:
        metric = kind("x", extractor="wavelet").with_runtime(Runtime(shard=shard))
        scores = as_scores(metric, metric.score(metric.prepare(real), fake)).values.values()
        return [part for each in scores if each.influence is not None for part in each.influence]

    expected = influences(Shard())
    for found in in_shards(world_size, influences):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["fid", "kid", "kid_rbf", "cmmd", "precision", "density", "fid50k"])
def test_preparing_the_reference_is_divided(cloud: Cloud, name: str) -> None:
    parts: list[Tensor] = []

    def remember(part: Tensor) -> Tensor:
        parts.append(part)
        return part

    metric = CATALOGUE[name].metric(name, extractor="wavelet")
    metric.with_runtime(Runtime(shard=Shard(0, 2, remember))).prepare(cloud(0, 20, 3))
    assert len(parts) == 1


def test_more_processes_than_rows(cloud: Cloud, in_shards: InShards) -> None:
    real, fake = cloud(0, 5, 3), cloud(1, 4, 3, centre=0.5)
    tried = 0
    for kind in METRICS.values():
        if kind("x", extractor="wavelet").min_images() > 4:
            continue
        tried += 1
        expected = score(kind, real, fake, Shard())
        for found in in_shards(7, partial(score, kind, real, fake)):
            assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert tried >= 6


def test_neighbours_in_both_real_sets_are_divided(
    cloud: Cloud, in_shards: InShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held_out, fake = cloud(0, 53, 6), cloud(1, 41, 6), cloud(2, 47, 6)

    def compute(shard: Shard) -> dict[str, float]:
        found = RealNeighbors(train, held_out, "euclidean", 2, 0, shard).compare(fake)
        return {name: value.item() for name, value in found.scalars._asdict().items()}

    expected = compute(Shard())
    monkeypatch.setattr(neighbors, "tile_size", lambda *_: 11)
    for found in in_shards(3, compute):
        assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_process_works_on_its_own_tiles_only(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    features = cloud(0, 11, 3)
    monkeypatch.setattr(kernel_sums, "tile_size", lambda *_: 4)
    parts = [within_sums(features, Kernel(), Shard(rank, 3)).rows for rank in range(3)]
    whole = within_sums(features, Kernel()).rows
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0.0)
    assert all(0 < part.sum() < 0.7 * whole.sum() for part in parts)


def test_a_process_works_on_its_own_rows_only(cloud: Cloud) -> None:
    features = cloud(0, 11, 3)
    part, whole = squared_radii(features, 3, Shard(1, 3)), squared_radii(features, 3)
    own = Shard(1, 3).rows(11)
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
        frechet.fit_gaussian(features, Shard(rank, 2, remember))
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
