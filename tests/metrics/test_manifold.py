from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from lightning_synthqual.metrics import density_coverage, neighbors, precision_recall
from lightning_synthqual.metrics.base import Influence, Score, as_scores
from lightning_synthqual.metrics.difference import paired_difference
from lightning_synthqual.metrics.manifold import (
    DensityCoverageMetric,
    PrecisionRecallMetric,
    ball_counts,
    manifold_membership,
)
from lightning_synthqual.metrics.neighbors import squared_radii
from lightning_synthqual.metrics.shard import Shard
from lightning_synthqual.metrics.views import Runtime

Golden = Callable[[str], tuple[Tensor, ...]]
Cloud = Callable[..., Tensor]
InShards = Callable[[int, Callable[[Shard], Any]], list[Any]]

law = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)
counts = st.integers(5, 16)
dimensions = st.integers(1, 7)

# Exact float64 distances, border included (<=), written for the golden set; with k=3 torch-fidelity 0.4.0 and StyleGAN3
# (commit c233a91, float32) print the same. On F, prdc 0.2, which leaves the border out, prints 0.55 and 0.65.
GOLDEN = [
    ("A", 3, 0.7, 0.652),
    ("B", 3, 0.092, 0.952),
    ("C", 3, 0.9933333333333333, 0.07333333333333333),
    ("D", 3, 1.0, 0.002),
    ("E", 3, 0.8266666666666667, 0.8716666666666667),
    ("F", 3, 0.875, 0.925),
    ("A", 5, 0.805, 0.762),
    ("B", 5, 0.135, 0.978),
    ("C", 5, 1.0, 0.1),
    ("D", 5, 1.0, 0.002),
    ("E", 5, 0.8916666666666667, 0.9133333333333333),
    ("F", 5, 1.0, 1.0),
]


def numbers(real: Tensor, fake: Tensor, k: int = 3) -> list[float]:
    return [value.item() for value in precision_recall(real, fake, k=k)]


def by_definition(real: Tensor, fake: Tensor, k: int) -> list[float]:
    """Every ball around every row, one by one."""

    def covered(rows: Tensor, centres: Tensor) -> float:
        radii = []
        for i, centre in enumerate(centres):
            others = torch.cat([centres[:i], centres[i + 1 :]])
            radii.append((others - centre).norm(dim=1).sort().values[k - 1])
        inside = [any((row - c).norm() <= r for c, r in zip(centres, radii, strict=True)) for row in rows]
        return sum(inside) / len(inside)

    return [covered(fake, real), covered(real, fake)]


@pytest.mark.parametrize(("case", "k", "precision", "recall"), GOLDEN)
def test_golden(golden: Golden, case: str, k: int, precision: float, recall: float) -> None:
    real, fake, _ = golden(case)
    assert numbers(real, fake, k) == pytest.approx([precision, recall], abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_agrees_with_torch_fidelity(pair: tuple[Tensor, Tensor], k: int) -> None:
    real, fake = pair
    expected = prc_features_to_metric(fake.double(), real.double(), prc_neighborhood=k, verbose=False)
    assert numbers(real, fake, k) == pytest.approx([expected["precision"], expected["recall"]], abs=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_agrees_with_prdc_where_no_row_lies_on_a_border(pair: tuple[Tensor, Tensor], k: int) -> None:
    real, fake = pair
    expected = compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=k)
    assert numbers(real, fake, k) == pytest.approx([expected["precision"], expected["recall"]], abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("rows", [(20, 30), (12, 5)])
def test_by_definition(cloud: Cloud, rows: tuple[int, int], k: int) -> None:
    real, fake = cloud(0, rows[0], 3), cloud(1, rows[1], 3, centre=0.7)
    expected = by_definition(real, fake, k)
    assert 0 < expected[0] < 1
    assert numbers(real, fake, k) == expected


def test_border_of_a_ball_is_inside() -> None:
    real = torch.tensor([[-10.0], [0.0], [1.0]])
    fake = torch.tensor([[2.0], [2.5]])
    assert numbers(real, fake, k=1) == [0.5, 0.0]
    assert numbers(fake, real, k=1) == [0.0, 0.5]


def test_identical_sets_cover_each_other(cloud: Cloud) -> None:
    real = cloud(0, 60, 16)
    assert numbers(real, real) == [1.0, 1.0]
    assert numbers(real.float() + 1e4, real.float() + 1e4) == [1.0, 1.0]
    assert numbers(real[:1].expand(10, -1), real[:1].expand(7, -1)) == [1.0, 1.0]


def test_disjoint_clusters_have_nothing_in_common(cloud: Cloud) -> None:
    assert numbers(cloud(0, 60, 16), cloud(1, 50, 16, centre=100.0)) == [0.0, 0.0]


def test_missing_mode_costs_recall_and_not_precision(cloud: Cloud) -> None:
    modes = cloud(0, 30, 4), cloud(1, 30, 4, centre=100.0)
    real = torch.cat(modes)
    assert numbers(real, modes[0]) == [1.0, 0.5]
    assert numbers(modes[0], real) == [0.5, 1.0]


def test_more_neighbours_never_cover_less(cloud: Cloud) -> None:
    real, fake = cloud(0, 50, 8), cloud(1, 40, 8, centre=0.5)
    values = torch.tensor([numbers(real, fake, k) for k in (1, 2, 3, 5, 9, 20)])
    assert (values.diff(dim=0) >= 0).all()
    assert (values[-1] > values[0]).all()


@pytest.mark.parametrize("k", [1, 3])
def test_tile_size_does_not_matter(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    real, fake = cloud(0, 101, 8), cloud(1, 67, 8, centre=0.3)
    fake[:10] = real[40:50]
    expected, radii, density = numbers(real, fake, k), squared_radii(real, k), density_coverage(real, fake, k=k)
    for tile in (6, 13):
        monkeypatch.setattr(neighbors, "tile_size", lambda *_, tile=tile: tile)
        assert numbers(real, fake, k) == expected
        assert density_coverage(real, fake, k=k) == density
        assert torch.equal(squared_radii(real, k), radii)


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, k=st.integers(1, 4))
def test_precision_and_recall_swap_roles_with_the_sets(cloud: Cloud, seed: int, n: int, m: int, d: int, k: int) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5, spread=0.7)
    assert numbers(fake, real, k) == numbers(real, fake, k)[::-1]


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, k=st.integers(1, 4), data=st.data())
def test_order_of_rows_does_not_matter(cloud: Cloud, seed: int, n: int, m: int, d: int, k: int, data: Any) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    shuffled = real[data.draw(st.permutations(range(n)))], fake[data.draw(st.permutations(range(m)))]
    assert numbers(*shuffled, k) == numbers(real, fake, k)


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, shift=st.floats(-1e5, 1e5), factor=st.floats(1e-3, 1e3))
def test_moving_turning_and_scaling_both_sets_does_not_matter(
    cloud: Cloud, seed: int, n: int, m: int, d: int, shift: float, factor: float
) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    expected = numbers(real, fake)
    turn = torch.linalg.qr(cloud(seed + 2, d, d)).Q
    assert numbers(real + shift, fake + shift) == expected
    assert numbers(real @ turn, fake @ turn) == expected
    assert numbers(factor * real, factor * fake) == expected


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions)
def test_within_zero_and_one(cloud: Cloud, seed: int, n: int, m: int, d: int) -> None:
    for value in numbers(cloud(seed, n, d), cloud(seed + 1, m, d, centre=1.0)):
        assert 0 <= value <= 1


@pytest.mark.parametrize(("n", "m", "k", "named"), [(3, 9, 3, "k=3, N=3"), (9, 3, 4, "k=4, N=3"), (9, 9, 0, "k=0")])
def test_neighbour_that_does_not_exist_is_refused(cloud: Cloud, n: int, m: int, k: int, named: str) -> None:
    with pytest.raises(ValueError, match=f"`k` must be at least 1 and less than the number of rows, but got {named}"):
        precision_recall(cloud(0, n, 3), cloud(1, m, 3), k=k)


# prdc 0.2 on float64 rows, nearest_k=5; the same by exact float64 distances, border left out (<), written for the
# golden set.
GOLDEN_DENSITY = [
    ("A", 0.8535, 0.922),
    ("B", 0.05500000000000001, 0.229),
    ("C", 8.906666666666666, 1.0),
    ("D", 0.2, 0.002),
    ("E", 1.0596666666666665, 0.9983333333333333),
    ("F", 0.5900000000000001, 0.625),
]


@pytest.mark.parametrize(("case", "density", "coverage"), GOLDEN_DENSITY)
def test_golden_density_and_coverage(golden: Golden, case: str, density: float, coverage: float) -> None:
    real, fake, _ = golden(case)
    assert [v.item() for v in density_coverage(real, fake)] == pytest.approx([density, coverage], abs=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_density_and_coverage_agree_with_prdc(pair: tuple[Tensor, Tensor], k: int) -> None:
    real, fake = pair
    expected = compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=k)
    found = [value.item() for value in density_coverage(real, fake, k=k)]
    assert found == pytest.approx([expected["density"], expected["coverage"]], abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_density_and_coverage_by_definition(cloud: Cloud, k: int) -> None:
    real, fake = cloud(0, 20, 3), cloud(1, 30, 3, centre=0.7)
    inside = torch.zeros(30, 20, dtype=torch.float64)
    for j, centre in enumerate(real):
        radius = (real - centre).norm(dim=1).sort().values[k]
        inside[:, j] = (fake - centre).norm(dim=1) < radius
    found = density_coverage(real, fake, k=k)
    assert found.density.item() == pytest.approx(inside.sum().item() / (k * 30), rel=1e-12)
    assert found.coverage.item() == pytest.approx(inside.any(dim=0).double().mean().item(), rel=1e-12)
    by_fake, by_real = ball_counts(real, squared_radii(real, k), fake)
    assert torch.equal(by_fake, inside.sum(dim=1))
    assert torch.equal(by_real, inside.sum(dim=0))


def test_border_of_a_ball_is_outside_for_density_and_coverage() -> None:
    real = torch.tensor([[-10.0], [0.0], [1.0]])
    assert [v.item() for v in density_coverage(real, torch.tensor([[2.0], [3.0]]), k=1)] == [0.0, 0.0]
    near = density_coverage(real, torch.tensor([[1.99], [3.0]]), k=1)
    assert [v.item() for v in near] == pytest.approx([0.5, 1 / 3])


def test_a_collapsed_generator_has_finite_values(cloud: Cloud) -> None:
    real = cloud(0, 60, 16).float()
    for point in (real[:1], real[:1] + 1e3, torch.zeros(1, 16)):
        fake = point.expand(50, -1)
        for value in (*precision_recall(real, fake), *density_coverage(real, fake)):
            assert value.isfinite()
    assert precision_recall(real, real[:1].expand(50, -1)).precision == 1.0
    assert density_coverage(real, real[:1].expand(50, -1)).coverage < 0.3


def test_density_needs_neighbours_of_the_real_rows_only(cloud: Cloud) -> None:
    assert density_coverage(cloud(0, 6, 3), cloud(1, 2, 3), k=5).density.isfinite()
    with pytest.raises(ValueError, match="k=5, N=5"):
        density_coverage(cloud(0, 5, 3), cloud(1, 20, 3), k=5)


def scores_of(real: Tensor, fake: Tensor) -> dict[str, Score]:
    found: dict[str, Score] = {}
    for metric in (PrecisionRecallMetric("pr"), DensityCoverageMetric("dc")):
        found |= as_scores(metric, metric.score(metric.prepare(real), fake)).values
    return found


def influences(real: Tensor, fake: Tensor) -> dict[str, Influence]:
    found = scores_of(real, fake).items()
    return {name: score.influence for name, score in found if score.influence is not None}


def test_influences_are_of_every_row_and_have_mean_zero(cloud: Cloud) -> None:
    found = influences(cloud(0, 60, 5), cloud(1, 40, 5, centre=0.5))
    assert set(found) == {"precision", "recall", "density", "coverage"}
    for each in found.values():
        assert (len(each.fake), len(each.real)) == (40, 60)
        assert each.fake.dtype == each.real.dtype == torch.float64
        assert [abs(rows.sum().item()) < 1e-9 for rows in each[1:]] == [True, True]
        assert each.std > 0


@pytest.mark.parametrize("name", ["precision", "density"])
def test_without_a_generated_row_the_value_is_less_by_its_influence(cloud: Cloud, name: str) -> None:
    real, fake = cloud(0, 60, 5), cloud(1, 40, 5, centre=0.5)
    whole = influences(real, fake)[name]
    for row in range(0, 40, 7):
        without = influences(real, torch.cat([fake[:row], fake[row + 1 :]]))[name].value
        assert (without - whole.value).item() == pytest.approx(-whole.fake[row].item() / 39, abs=1e-12)


@pytest.mark.parametrize("name", ["recall", "coverage"])
def test_the_own_part_of_real_rows_is_whether_they_are_covered(cloud: Cloud, name: str) -> None:
    found = influences(cloud(0, 60, 5), cloud(1, 40, 5, centre=0.5))[name]
    assert set((found.real + found.value).round().tolist()) == {0.0, 1.0}


def test_rows_that_are_all_alike_have_no_influence(cloud: Cloud) -> None:
    real = cloud(0, 60, 5)
    for each in influences(real, real[:1].expand(30, -1)).values():
        assert each.std.isfinite()
    assert influences(real, real)["precision"].std == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dimension", "n", "m", "centre", "spread"),
    [
        (8, 250, 200, 0.3, 1.0),
        (8, 250, 250, 0.0, 1.0),
        (24, 250, 250, 0.0, 0.9),
        (4, 400, 150, 0.4, 1.0),
        (8, 100, 500, 0.0, 1.0),
    ],
)
def test_errors_of_values_and_of_paired_changes_tell_their_spread(
    dimension: int, n: int, m: int, centre: float, spread: float
) -> None:
    """Over 100 draws; of the change between two generators that differ by some percent, on the same latents."""
    draw = torch.Generator().manual_seed(0)
    turn = torch.eye(dimension) + 0.08 / dimension**0.5 * torch.randn(dimension, dimension, generator=draw)
    values, errors = defaultdict(list), defaultdict(list)
    for _ in range(100):
        real = torch.randn(n, dimension, generator=draw)
        fake = centre + spread * torch.randn(m, dimension, generator=draw)
        before, after = scores_of(real, fake), scores_of(real, fake @ turn)
        for name, a in before.items():
            for kind, each in (("value", a), ("change", paired_difference(after[name], a))):
                values[kind, name].append(torch.as_tensor(each.value))
                errors[kind, name].append(torch.as_tensor(each.error).square())
    for key, found in values.items():
        if key[1] != "coverage" or m < 2 * n:  # else nearly all are covered in each draw
            ratio = torch.stack(errors[key]).mean().sqrt() / torch.stack(found).std()
            assert 0.65 < ratio.item() < 1.5, (key, ratio.item())


@pytest.mark.parametrize("world_size", [2, 4])
def test_influences_are_the_same_on_any_number_of_processes(cloud: Cloud, in_shards: InShards, world_size: int) -> None:
    real, fake = cloud(0, 61, 5), cloud(1, 43, 5, centre=0.5)
    whole = influences(real, fake)

    def compute(shard: Shard) -> dict[str, Influence]:
        found: dict[str, Influence] = {}
        for metric in (PrecisionRecallMetric("pr"), DensityCoverageMetric("dc")):
            bound = metric.with_runtime(Runtime(shard=shard))
            scores = as_scores(bound, bound.score(bound.prepare(real), fake)).values
            found |= {name: score.influence for name, score in scores.items() if score.influence is not None}
        return found

    for found in in_shards(world_size, compute):
        for name, each in whole.items():
            for part, expected in zip(found[name], each, strict=True):
                torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)


def test_known_radii_give_the_same_numbers(cloud: Cloud) -> None:
    real, fake = cloud(0, 40, 5), cloud(1, 30, 5, centre=0.5)
    fake_inside, real_inside = manifold_membership(real, squared_radii(real, 3), fake, squared_radii(fake, 3))
    assert fake_inside.double().mean() == precision_recall(real, fake).precision
    assert real_inside.double().mean() == precision_recall(real, fake).recall


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, k=st.integers(1, 4), shift=st.floats(-1e5, 1e5), data=st.data())
def test_density_and_coverage_know_neither_order_nor_place(
    cloud: Cloud, seed: int, n: int, m: int, d: int, k: int, shift: float, data: Any
) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    expected = density_coverage(real, fake, k=k)
    shuffled = real[data.draw(st.permutations(range(n)))], fake[data.draw(st.permutations(range(m)))]
    assert density_coverage(*shuffled, k=k) == expected
    assert density_coverage(real + shift, fake + shift, k=k) == expected
    turn = torch.linalg.qr(cloud(seed + 2, d, d)).Q
    assert density_coverage(real @ turn, fake @ turn, k=k) == expected
