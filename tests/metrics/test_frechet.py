from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from lightning_synthqual.metrics import frechet, frechet_distance, frechet_influence
from lightning_synthqual.metrics.frechet import (
    Fid50k,
    FrechetDistance,
    distance_to_gaussian,
    distance_with_error,
    fit_gaussian,
    moments,
)

Golden = Callable[[str], tuple[Tensor, ...]]
Cloud = Callable[..., Tensor]
LeftOut = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], float]

law = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)
counts = st.integers(2, 14)  # against 1 to 7 columns: both sides of N = D
dimensions = st.integers(1, 7)

# Nuclear norm of the centred Gram matrix in float64, ddof=1, written for the golden set. torch-fidelity 0.4.0 prints
# the same on float64 rows to 1e-12 relative, on C (rank deficient) to 5e-8.
GOLDEN = {
    "A": 37.44710784466167,
    "B": 9.42925899426075,
    "C": 115.95254216581048,
    "D": 291.34180730536633,
    "E": 0.45317396816408007,
    "F": 1.8123850826942594,
}


def by_nuclear_norm(real: Tensor, fake: Tensor) -> float:
    """The distance without any covariance matrix."""
    moments = 0.0
    roots = []
    for rows in (real.double(), fake.double()):
        roots.append((rows - rows.mean(dim=0)) / (len(rows) - 1) ** 0.5)
        moments += roots[-1].square().sum().item()
    shift = (real.double().mean(dim=0) - fake.double().mean(dim=0)).square().sum().item()
    return shift + moments - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum().item()


def size(real: Tensor, fake: Tensor) -> float:
    """What rounding errors of the distance are measured against."""
    return real.var(dim=0).sum().item() + fake.var(dim=0).sum().item() + (real.mean(0) - fake.mean(0)).norm().item()


def by_torch_fidelity(real: Tensor, fake: Tensor) -> float:
    statistics = [fid_features_to_statistics(rows.double()) for rows in (real, fake)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def by_torchmetrics(real: Tensor, fake: Tensor) -> float:
    identity = nn.Identity()
    identity.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return metric.compute().item()


@pytest.mark.parametrize(("case", "expected"), GOLDEN.items())
def test_golden(golden: Golden, case: str, expected: float) -> None:
    real, fake, _ = golden(case)
    assert frechet_distance(real, fake).item() == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(fake, real).item() == pytest.approx(expected, rel=1e-6)


# Same source as GOLDEN, on parts of case A. torch-fidelity 0.4.0 and torchmetrics 1.9.0 miss the tiny one by 2.4e-5.
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda real, fake: (real, real), 0.0, id="identical"),
        pytest.param(lambda real, fake: (real, real[3].expand(200, -1)), 777.4180044571049, id="constant fakes"),
        pytest.param(lambda real, fake: (real[:5], fake[:6]), 701.6453154243402, id="tiny"),
        pytest.param(lambda real, fake: (1e-3 * real, 1e-3 * fake), 3.744711135188184e-05, id="scaled down"),
    ],
)
def test_golden_edges(golden: Golden, change: Callable[..., tuple[Tensor, Tensor]], expected: float) -> None:
    real, fake = change(*golden("A")[:2])
    assert frechet_distance(real, fake).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("peer", [by_torch_fidelity, by_torchmetrics])
def test_agrees_with_peers(pair: tuple[Tensor, Tensor], peer: Callable[[Tensor, Tensor], float]) -> None:
    assert frechet_distance(*pair).item() == pytest.approx(peer(*pair), rel=1e-5)


@pytest.mark.parametrize("peer", [by_torch_fidelity, by_torchmetrics])
def test_agrees_with_peers_on_sets_of_unequal_size(cloud: Cloud, peer: Callable[[Tensor, Tensor], float]) -> None:
    real, fake = cloud(0, 90, 12), cloud(1, 40, 12, centre=0.3)
    assert frechet_distance(real, fake).item() == pytest.approx(peer(real, fake), rel=1e-9)


@pytest.mark.parametrize("rows", [(80, 70), (80, 20), (20, 80), (20, 25), (40, 40), (41, 40)])
def test_every_branch_on_either_side_of_as_many_rows_as_columns(cloud: Cloud, rows: tuple[int, int]) -> None:
    real, fake = cloud(0, rows[0], 40), cloud(1, rows[1], 40, centre=0.1)
    assert frechet_distance(real, fake).item() == pytest.approx(by_nuclear_norm(real, fake), rel=1e-8)


def test_columns_that_depend_on_others_cost_no_digits(cloud: Cloud) -> None:
    """Grey pictures have three equal channels: N > D and yet a covariance of low rank."""
    real, fake = (cloud(seed, 400, 10).repeat(1, 20) for seed in (0, 0))
    fake = fake + 0.01
    fake[::2] += 0.01
    assert frechet_distance(real, fake).item() == pytest.approx(by_nuclear_norm(real, fake), rel=1e-8)


def test_shifted_cloud_is_as_far_as_the_shift_is_long(cloud: Cloud) -> None:
    for rows in (9, 200):
        real = cloud(0, rows, 12)
        shift = torch.linspace(-2, 3, 12, dtype=torch.float64)
        assert frechet_distance(real, real + shift).item() == pytest.approx(shift.square().sum().item(), rel=1e-9)


def test_magnified_cloud(cloud: Cloud) -> None:
    """Covariances S and c²S commute: the trace term is (c - 1)² tr S."""
    real = cloud(0, 100, 6)
    centred = real - real.mean(dim=0)
    expected = 0.25 * real.var(dim=0).sum().item()
    assert frechet_distance(centred, 1.5 * centred).item() == pytest.approx(expected, rel=1e-10)


def test_one_column_is_the_difference_of_means_and_of_deviations(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 1), cloud(1, 20, 1, centre=2.0, spread=3.0)
    expected = (real.mean() - fake.mean()).square() + (real.std() - fake.std()).square()
    assert frechet_distance(real, fake).item() == pytest.approx(expected.item(), rel=1e-10)


def test_independent_directions_do_not_overlap() -> None:
    real = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    fake = torch.tensor([[0.0, -2.0], [0.0, 2.0]])
    assert frechet_distance(real, fake).item() == pytest.approx(2.0 + 8.0, rel=1e-12)


def test_far_off_mean_costs_no_digits(cloud: Cloud) -> None:
    real, fake = cloud(0, 200, 8), cloud(1, 150, 8, centre=0.3)
    expected = frechet_distance(real, fake).item()
    assert frechet_distance(real + 1e6, fake + 1e6).item() == pytest.approx(expected, rel=1e-8)


def test_fitted_reference_gives_the_same_distance(cloud: Cloud) -> None:
    real = cloud(0, 50, 10)
    gaussian = fit_gaussian(real)
    assert gaussian.mean.tolist() == pytest.approx(real.mean(dim=0).tolist())
    torch.testing.assert_close(gaussian.factor.T @ gaussian.factor, real.T.cov(), rtol=1e-10, atol=1e-12)
    for rows in (8, 40):
        fake = cloud(1, rows, 10)
        assert distance_to_gaussian(gaussian, fake).item() == frechet_distance(real, fake).item()


@pytest.mark.parametrize("rows", [(101, 67), (101, 5), (5, 101)])
def test_tile_size_does_not_matter(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, int]) -> None:
    real, fake = cloud(0, rows[0], 8), cloud(1, rows[1], 8, centre=0.5)
    expected = frechet_distance(real, fake).item()
    for tile in (1, 7, 13):
        monkeypatch.setattr(frechet, "_ROWS", tile)
        assert frechet_distance(real, fake).item() == pytest.approx(expected, rel=1e-10)


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions)
def test_symmetric_and_not_negative(cloud: Cloud, seed: int, n: int, m: int, d: int) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, spread=0.7)
    distance = frechet_distance(real, fake).item()
    assert distance >= 0
    assert 0 <= frechet_distance(real, real).item() <= 1e-9 * size(real, real)
    assert frechet_distance(fake, real).item() == pytest.approx(distance, abs=1e-9 * size(real, fake))


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, data=st.data())
def test_order_of_rows_does_not_matter(cloud: Cloud, seed: int, n: int, m: int, d: int, data: Any) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    expected = frechet_distance(real, fake).item()
    shuffled = frechet_distance(real[data.draw(st.permutations(range(n)))], fake[data.draw(st.permutations(range(m)))])
    assert shuffled.item() == pytest.approx(expected, abs=1e-9 * size(real, fake))


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, shift=st.floats(-100, 100))
def test_moving_and_turning_both_sets_does_not_matter(
    cloud: Cloud, seed: int, n: int, m: int, d: int, shift: float
) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    expected = pytest.approx(frechet_distance(real, fake).item(), abs=1e-9 * size(real, fake))
    turn = torch.linalg.qr(cloud(seed + 2, d, d)).Q
    assert frechet_distance(real + shift, fake + shift).item() == expected
    assert frechet_distance(real @ turn, fake @ turn).item() == expected


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, factor=st.floats(1e-3, 1e3))
def test_grows_with_the_square_of_the_unit(cloud: Cloud, seed: int, n: int, m: int, d: int, factor: float) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    scaled = frechet_distance(factor * real, factor * fake).item() / factor**2
    assert scaled == pytest.approx(frechet_distance(real, fake).item(), abs=1e-9 * size(real, fake))


# StyleGAN3 (commit c233a91), metrics.frechet_inception_distance, which divides covariances by N.
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("A", 37.395946260920525),
        ("B", 9.420918299567825),
        ("C", 115.57516650663494),
        ("D", 291.1251923343172),
        ("E", 0.4524851844370667),
        ("F", 1.808731705626898),
    ],
)
def test_golden_with_covariances_divided_by_n(golden: Golden, case: str, expected: float) -> None:
    real, fake, _ = golden(case)
    gaussian = fit_gaussian(real, ddof=0)
    assert distance_to_gaussian(gaussian, fake, ddof=0).item() == pytest.approx(expected, rel=1e-6, abs=1e-4)
    influence, _ = distance_with_error(gaussian, real, fake, ddof=0)
    assert influence.value.item() == pytest.approx(expected, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("ddof", [0, 1])
def test_moments(cloud: Cloud, ddof: int) -> None:
    rows = cloud(0, 30, 4, centre=3.0)
    mean, covariance = moments(rows, ddof=ddof)
    torch.testing.assert_close(mean, rows.mean(dim=0))
    torch.testing.assert_close(covariance, rows.T.cov(correction=ddof))


def test_the_distance_with_error_is_the_distance(pair: tuple[Tensor, Tensor]) -> None:
    real, fake = pair
    found, error = distance_with_error(fit_gaussian(real), real, fake)
    assert found.value.item() == pytest.approx(frechet_distance(real, fake).item(), rel=1e-8)
    assert error.isfinite()
    assert error > 0


def test_error_of_sets_far_apart_is_that_of_the_jackknife(cloud: Cloud) -> None:
    """There what is second order is small."""
    real, fake = cloud(0, 120, 3), cloud(1, 80, 3, centre=1.5, spread=2.0)

    def jackknife(rows: Tensor, distance: Callable[[Tensor], Tensor]) -> float:
        values = [distance(torch.cat([rows[:i], rows[i + 1 :]])) for i in range(len(rows))]
        return (len(rows) - 1) * torch.stack(values).var(correction=0).item()

    variance = jackknife(real, lambda rows: frechet_distance(rows, fake))
    variance += jackknife(fake, lambda rows: frechet_distance(real, rows))
    assert distance_with_error(fit_gaussian(real), real, fake)[1].item() == pytest.approx(variance**0.5, rel=0.03)


@pytest.mark.parametrize(("dimension", "centre"), [(3, 1.5), (8, 0.7)])
def test_influences_are_what_leaving_a_row_out_changes(
    cloud: Cloud, left_out: LeftOut, dimension: int, centre: float
) -> None:
    real, fake = cloud(0, 200, dimension), cloud(1, 200, dimension, centre=centre, spread=1.4)
    found = frechet_influence(real, fake)
    assert left_out(lambda rows: frechet_distance(real, rows), fake, found.fake) < 0.05
    assert left_out(lambda rows: frechet_distance(rows, fake), real, found.real) < 0.05


def test_influences_in_one_dimension(cloud: Cloud) -> None:
    """There the distance is ``(m1 - m2)² + (s1 - s2)²``."""
    real, fake = cloud(0, 30, 1), cloud(1, 20, 1, centre=2.0, spread=3.0)
    found = frechet_influence(real, fake)
    for rows, other, influences in ((fake, real, found.fake), (real, fake, found.real)):
        centred = (rows - rows.mean())[:, 0]
        squares = centred.square() - centred.square().mean()
        expected = 2 * centred * (rows.mean() - other.mean()) + (1 - other.std() / rows.std()) * squares
        torch.testing.assert_close(influences, expected, rtol=1e-9, atol=1e-9)


# Printed when the error came from sums over the influences: covariances divided by N - 1, and by N.
@pytest.mark.parametrize(
    ("case", "ddof", "expected"),
    [
        ("A", 1, 1.558640126874293),
        ("A", 0, 1.560061184281619),
        ("B", 1, 0.14032642431135794),
        ("B", 0, 0.14036029019431687),
        ("C", 1, 0.798185957949023),
        ("C", 0, 0.7992816954032241),
        ("E", 1, 0.0676258238367804),
        ("E", 0, 0.06762582383678148),
    ],
)
def test_golden_error(golden: Golden, case: str, ddof: int, expected: float) -> None:
    real, fake, _ = golden(case)
    metric = {1: FrechetDistance, 0: Fid50k}[ddof]("fd", extractor="wavelet")
    score = metric.score(metric.prepare(real), fake)
    assert score.error.item() == pytest.approx(expected, rel=1e-9)
    assert score.error <= score.influence.std
    assert score.value == score.influence.value
    assert (len(score.influence.fake), len(score.influence.real)) == (len(fake), len(real))


@pytest.mark.parametrize(
    ("dimension", "n", "m", "centre", "spread"),
    [
        pytest.param(8, 200, 150, 0.3, 1.2, id="unlike"),
        pytest.param(8, 200, 200, 0.0, 1.0, id="equal"),
        pytest.param(8, 400, 60, 0.1, 1.0, id="unequal numbers"),
        pytest.param(40, 25, 30, 0.2, 1.1, id="fewer rows than columns"),
    ],
)
def test_error_tells_the_spread_over_200_independent_draws(
    dimension: int, n: int, m: int, centre: float, spread: float
) -> None:
    draw = torch.Generator().manual_seed(0)
    mixing = torch.eye(dimension) + 0.2 * torch.randn(dimension, dimension, generator=draw)
    values, errors = [], []
    for _ in range(200):
        real = torch.randn(n, dimension, generator=draw) @ mixing
        fake = centre + spread * torch.randn(m, dimension, generator=draw) @ mixing
        found, error = distance_with_error(fit_gaussian(real), real, fake)
        values.append(found.value)
        errors.append(error)
    ratio = torch.stack(errors).mean() / torch.stack(values).std()
    assert ratio.item() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("rows", [60, 6])
def test_error_of_a_collapsed_generator_is_finite(cloud: Cloud, rows: int) -> None:
    real = cloud(0, 50, 8)
    found, error = distance_with_error(fit_gaussian(real), real, real[:1].expand(rows, -1))
    assert all(part.isfinite().all() for part in (*found, error))
    same = real[:1].expand(20, -1)
    found, error = distance_with_error(fit_gaussian(same), same, same)
    assert (found.value.item(), error.item()) == (0.0, 0.0)


def test_grows_with_the_shift_of_the_mean(cloud: Cloud) -> None:
    real, fake = cloud(0, 60, 6), cloud(1, 50, 6)
    away = fake.mean(dim=0) - real.mean(dim=0)
    values = [frechet_distance(real, fake + step * away).item() for step in (0, 0.5, 1, 2, 5)]
    assert values == sorted(values)
    assert len(set(values)) == 5
