from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerator import FREE, accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_synthqual.metrics import (
    bounds,
    density_coverage,
    frechet_distance,
    kernel_distance,
    memorization,
    nearest_neighbors,
    neighbors,
    precision_recall,
)
from lightning_synthqual.metrics.bounds import Pair, tile_memory
from lightning_synthqual.metrics.neighbors import Limit, near, search, squared_radii, squared_radii_for
from lightning_synthqual.metrics.shard import MEMORY

Golden = Callable[[str], tuple[Tensor, ...]]
Cloud = Callable[..., Tensor]

law = settings(derandomize=True, deadline=None, max_examples=40)


@pytest.fixture(params=["float32 products", "float64 products"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products as fast as they come, and in the precision of what is neither a CPU nor CUDA."""
    if request.param == "float64 products":
        monkeypatch.setattr(bounds, "working_dtype", lambda device: torch.float64)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("case", ["A", "B", "C", "D", "E"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_golden_cases_agree_with_scikit_learn(golden: Golden, case: str, distance: str) -> None:
    real, fake, _ = golden(case)
    peer = NearestNeighbors(n_neighbors=3, algorithm="brute", metric=distance).fit(real.double().numpy())
    expected = peer.kneighbors(fake.double().numpy())
    found = nearest_neighbors(fake, real, k=3, distance=distance)
    exact = torch.from_numpy(cdist(fake.double(), real.double(), distance)).sort(dim=1).values[:, :3]
    torch.testing.assert_close(found.distances, exact, rtol=0.0, atol=1e-9)
    if case != "D":  # all fakes of D are nearly one
        assert found.indices.tolist() == expected[1].tolist()


# The same peer (scikit-learn 1.9.1), first four of case A, as printed.
def test_golden_indices(golden: Golden) -> None:
    real, fake, _ = golden("A")
    assert nearest_neighbors(fake[:4], real, k=3).indices.tolist() == [
        [332, 107, 245],
        [433, 75, 492],
        [395, 321, 21],
        [189, 331, 151],
    ]
    assert nearest_neighbors(fake[:4], real, k=3, distance="cosine").indices.tolist() == [
        [332, 288, 258],
        [41, 153, 58],
        [395, 321, 21],
        [331, 36, 438],
    ]


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("k", [1, 4, 20])
def test_distances_are_those_of_float64_differences(pair: tuple[Tensor, Tensor], k: int) -> None:
    real, fake = pair
    exact = torch.from_numpy(cdist(fake.double().numpy(), real.double().numpy()))
    found = nearest_neighbors(fake, real, k=k)
    torch.testing.assert_close(found.distances, exact.sort(dim=1).values[:, :k], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(exact.gather(1, found.indices), found.distances, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("centre", [0.0, 20.0, 1e5])
def test_copies_are_found_at_distance_zero(cloud: Cloud, centre: float) -> None:
    features = cloud(0, 300, 33, centre=centre).float()
    found = nearest_neighbors(features[::7], features)
    assert found.distances.count_nonzero() == 0
    assert found.indices[:, 0].tolist() == list(range(0, 300, 7))


@pytest.mark.usefixtures("precision")
def test_near_copies_far_from_the_origin_are_told_from_copies(cloud: Cloud) -> None:
    features = cloud(0, 40, 8)
    for moved in (features, features + 1e5):
        distances = nearest_neighbors(moved + 1e-3, moved).distances[:, 0]
        torch.testing.assert_close(distances, torch.full_like(distances, 8e-6**0.5), rtol=1e-6, atol=0.0)


def test_cosine_of_near_copies_keeps_its_digits() -> None:
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 1e-7], [1.0, 1.0]], dtype=torch.float64)
    assert nearest_neighbors(x, y, distance="cosine").distances.item() == pytest.approx(5e-15, rel=1e-6)


def test_one_query_and_one_reference_suffice() -> None:
    found = nearest_neighbors(torch.zeros(1, 3), torch.ones(1, 3))
    assert found.distances.item() == pytest.approx(3**0.5)
    assert found.indices.tolist() == [[0]]


def test_all_references_in_order(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 4), cloud(1, 5, 4)
    found = nearest_neighbors(fake, real, k=30)
    assert found.indices.sort(dim=1).values.tolist() == [list(range(30))] * 5
    assert (found.distances.diff(dim=1) >= 0).all()


def test_radii_are_distances_to_other_rows(cloud: Cloud) -> None:
    features = cloud(0, 25, 6)
    ordered = torch.from_numpy(cdist(features, features)).sort(dim=1).values
    for k in (1, 3, 24):
        torch.testing.assert_close(squared_radii(features, k), ordered[:, k].square(), rtol=1e-12, atol=0.0)


def test_a_twin_is_a_neighbour_at_distance_zero(cloud: Cloud) -> None:
    features = cloud(0, 25, 6, centre=30.0).repeat(2, 1)
    assert (squared_radii(features, 1) == 0).all()
    assert (squared_radii(features, 2) > 0).all()
    assert (search(features, features, 1, own=True).indices[:, 0] - torch.arange(50)).abs().unique().tolist() == [25]


def test_more_near_ties_than_the_first_pass_keeps(cloud: Cloud) -> None:
    """Float32 products cannot order neighbours that differ by a millionth; the second pass can."""
    point = cloud(0, 1, 16)
    steps = torch.randperm(50, generator=torch.Generator().manual_seed(0)) + 1
    references = torch.cat([point + 1e-6 * steps[:, None], point + 100.0])
    found = nearest_neighbors(point, references, k=3)
    assert steps[found.indices[0]].tolist() == [1, 2, 3]
    torch.testing.assert_close(found.distances[0], torch.tensor([4e-6, 8e-6, 12e-6]).double(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("tile", [6, 13, 40])
def test_tile_size_does_not_matter(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    real, fake = cloud(0, 101, 8), cloud(1, 67, 8, centre=0.3)
    fake[:10] = real[40:50]
    expected = nearest_neighbors(fake, real, k=4)
    monkeypatch.setattr(neighbors, "tile_size", lambda *_: tile)
    monkeypatch.setattr(bounds, "_CACHED", 50)
    found = nearest_neighbors(fake, real, k=4)
    assert torch.equal(found.distances, expected.distances)
    assert torch.equal(found.indices, expected.indices)


def test_memory_bounds_the_tiles(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    product = torch.mm

    def watched(x: Tensor, y: Tensor, *, out: Tensor) -> Tensor:
        sizes.append(8 * (x.numel() + y.numel() + out.numel()))
        return product(x, y, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    real, fake = cloud(0, 300, 8), cloud(1, 200, 8)
    nearest_neighbors(fake, real, memory=2**14)
    assert len(sizes) > 20
    assert max(sizes) <= 2**14


@pytest.mark.usefixtures("precision")
@law
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 12),
    m=st.integers(2, 12),
    d=st.integers(1, 7),
    levels=st.integers(1, 4),
    strict=st.booleans(),
    shift=st.sampled_from([0.0, 1000.0]),
)
def test_what_is_within_a_limit_is_decided_exactly(
    seed: int, n: int, m: int, d: int, levels: int, strict: bool, shift: float
) -> None:
    """Integers, of which many are exactly on the limit."""
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.randint(0, levels, (rows, d), generator=draw) + shift for rows in (n, m))
    squared = (x[:, None] - y).double().square().sum(dim=2)
    for limit in (squared[:, :1], squared[:1]):
        expected = squared < limit if strict else squared <= limit
        found = torch.zeros_like(expected)
        for i, j, (inside,) in near(x, y, [Limit(limit, strict)]):
            found[i[inside], j[inside]] = True
        assert torch.equal(found, expected)


@pytest.mark.usefixtures("precision")
@law
@given(seed=st.integers(0, 10_000), d=st.integers(1, 5), levels=st.integers(2, 4), tile=st.sampled_from([2, 5, 100]))
def test_several_limits_share_a_pass(seed: int, d: int, levels: int, tile: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.randint(0, levels, (rows, d), generator=draw).float() for rows in (7, 9))
    squared = (x[:, None] - y).double().square().sum(dim=2)
    limits = [Limit(squared[:, :1]), Limit(squared[:1], strict=True), Limit(squared[1:2]), Limit(squared[:, 2:3], True)]
    found = torch.zeros(4, 7, 9, dtype=torch.bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "tile_size", lambda *_: tile)
        for i, j, inside in near(x, y, limits):
            found[:, i, j] |= inside
    for each, (bound, strict) in zip(found, limits, strict=True):
        assert torch.equal(each, squared < bound if strict else squared <= bound)


def test_radii_for_several_neighbours_are_those_of_each(cloud: Cloud) -> None:
    features = cloud(0, 60, 6)
    for k, found in zip((5, 1, 3), squared_radii_for(features, (5, 1, 3)), strict=True):
        assert torch.equal(found, squared_radii(features, k))
    with pytest.raises(ValueError, match="less than the number of rows, but got k=60, N=60"):
        squared_radii_for(features, (3, 60))


@law
@given(seed=st.integers(0, 10_000), d=st.integers(1, 300), scale=st.floats(1e-20, 1e20), shift=st.floats(-1e4, 1e4))
def test_bounds_hold(cloud: Cloud, seed: int, d: int, scale: float, shift: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, y = ((torch.randn(9, d, generator=draw, dtype=torch.float64) + shift) * scale for _ in range(2))
    y[0] = x[0]
    y[1] = x[1] * (1 + 1e-9)
    pair = Pair(x, y)
    i, j = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    exact = pair.exact(i.flatten(), j.flatten()).view(9, 9) / pair.scale**2
    for dtype in (torch.float32, torch.float64):
        ((_, lower),) = pair.lower_bounds(torch.arange(9), dtype, 2**20)
        assert (lower.double() <= exact).all()
        assert (exact <= lower.double() + pair.gap(i, j, dtype)).all()


@pytest.mark.parametrize("setting", ["high", "medium"])
def test_coarser_products_that_the_training_chose_do_not_matter(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    used: list[str] = []
    product = torch.mm

    def watched(x: Tensor, y: Tensor, *, out: Tensor) -> Tensor:
        used.append(torch.get_float32_matmul_precision())
        return product(x, y, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(setting)
        nearest_neighbors(cloud(0, 9, 3), cloud(1, 9, 3))
        assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision(before)
    assert used == ["highest"]


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), ("cuda", torch.float32), ("xpu", torch.float64)])
def test_float32_products_where_their_precision_can_be_kept(device: str, dtype: torch.dtype) -> None:
    assert bounds.working_dtype(torch.device(device)) == dtype


def test_tiles_of_a_gpu_take_a_share_of_what_is_free() -> None:
    with accelerator():
        assert tile_memory(torch.device("cuda")) == FREE // 8
        assert tile_memory(torch.device("cuda"), 10_000) == 10_000
    assert tile_memory(torch.device("cpu")) == MEMORY


def test_autocast_does_not_matter(cloud: Cloud) -> None:
    real, fake = cloud(0, 60, 16).float(), cloud(1, 40, 16).float()
    expected = nearest_neighbors(fake, real, k=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest_neighbors(fake, real, k=3)
    assert torch.equal(found.indices, expected.indices)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 0}, ValueError, "`k` must be from 1 to the number of references, but got k=0, M=9"),
        ({"k": 10}, ValueError, "but got k=10, M=9"),
        ({"distance": "manhattan"}, ValueError, "'euclidean' or 'cosine', but got 'manhattan'"),
        ({"queries": torch.zeros(0, 3)}, ValueError, "`queries` has 0 feature rows"),
        ({"references": torch.zeros(0, 3)}, ValueError, "`references` has 0 feature rows"),
        ({"queries": torch.zeros(4, 2)}, ValueError, "equally many columns, but got D=3 and D=2"),
        ({"queries": torch.full((4, 3), torch.nan)}, ValueError, "`queries` .*NaN or infinity, first in row 0"),
        ({"queries": torch.zeros(4, 3).long()}, ValueError, "`queries` .*got torch.int64"),
        ({"queries": torch.zeros(4, 3), "distance": "cosine"}, ValueError, "Row 0 of `queries` is zero"),
        ({"memory": 10}, ValueError, "`memory` of 10 bytes is too little"),
    ],
)
def test_bad_input(cloud: Cloud, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"queries": cloud(0, 4, 3), "references": cloud(1, 9, 3), **changes}
    with pytest.raises(error, match=message):
        nearest_neighbors(**arguments)


def test_nothing_is_used_that_has_no_deterministic_form_on_a_gpu():
    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.add(function.name().partition("::")[2].partition(".")[0])
            return function(*args, **(kwargs or {}))

    names: set[str] = set()
    rows = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    with Recorder():
        precision_recall(*rows)
        density_coverage(*rows)
        memorization(*rows, rows[0])
        kernel_distance(*rows)
        frechet_distance(*rows)
    assert "topk" in names
    # Those that torch.use_deterministic_algorithms refuses on CUDA in some version since 2.6.
    assert names.isdisjoint({"kthvalue", "median", "cumsum", "histc", "put_", "grid_sampler_2d", "adaptive_avg_pool2d"})
