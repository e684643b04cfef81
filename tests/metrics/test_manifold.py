from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from lightning_synthqual.metrics import manifold, precision_recall
from lightning_synthqual.metrics.manifold import precision_recall_within, squared_distances, squared_radii

Golden = Callable[[str], tuple[Tensor, ...]]
Cloud = Callable[..., Tensor]

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


def test_radii_are_distances_to_other_rows(cloud: Cloud) -> None:
    features = cloud(0, 25, 6)
    ordered = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values
    for k in (1, 3, 24):
        torch.testing.assert_close(squared_radii(features, k), ordered[:, k].square(), rtol=1e-10, atol=0.0)


def test_a_twin_is_a_neighbour_at_distance_zero(cloud: Cloud) -> None:
    features = cloud(0, 25, 6, centre=30.0).repeat(2, 1)
    assert (squared_radii(features, 1) == 0).all()
    assert (squared_radii(features, 2) > 0).all()


def test_copies_are_found_at_distance_zero(cloud: Cloud) -> None:
    features = cloud(0, 300, 33, centre=20.0)
    squared = squared_distances(features, features[torch.arange(0, 300, 7)])
    assert (squared[torch.arange(0, 300, 7), torch.arange(43)] == 0).all()
    assert (squared == 0).sum() == 43


def test_near_copies_far_from_the_origin_are_told_from_copies(cloud: Cloud) -> None:
    features = cloud(0, 40, 8)
    expected = squared_distances(features, features + 1e-3).diagonal()
    torch.testing.assert_close(expected, torch.full_like(expected, 8e-6), rtol=1e-8, atol=0.0)
    moved = squared_distances(features + 1e5, features + 1e5 + 1e-3).diagonal()
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=0.0)


def test_known_radii_give_the_same_numbers(cloud: Cloud) -> None:
    real, fake = cloud(0, 40, 5), cloud(1, 30, 5, centre=0.5)
    known = precision_recall_within(real, squared_radii(real, 3), fake, squared_radii(fake, 3))
    assert known == precision_recall(real, fake)


@pytest.mark.parametrize("k", [1, 3])
def test_tile_size_does_not_matter(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    real, fake = cloud(0, 101, 8), cloud(1, 67, 8, centre=0.3)
    fake[:10] = real[40:50]
    expected, radii = numbers(real, fake, k), squared_radii(real, k)
    for tile in (1, 7, 13):
        monkeypatch.setattr(manifold, "_TILE", tile)
        assert numbers(real, fake, k) == expected
        torch.testing.assert_close(squared_radii(real, k), radii, rtol=1e-10, atol=0.0)


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
