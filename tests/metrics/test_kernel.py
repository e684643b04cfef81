from collections.abc import Callable
from math import exp
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric
from torchmetrics.image.kid import KernelInceptionDistance

from lightning_synthqual.metrics import Metric, cmmd, kernel_distance, kernel_influence, kernel_sums
from lightning_synthqual.metrics.kernel import (
    ClipDiscrepancy,
    Kernel,
    PolynomialDistance,
    RbfDistance,
    exact_distance,
    within_sums,
)

Golden = Callable[[str], tuple[Tensor, ...]]
Cloud = Callable[..., Tensor]
LeftOut = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], float]

law = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)
counts = st.integers(3, 14)
dimensions = st.integers(1, 7)

# torch-fidelity 0.4.0, metric_kid.kernel_mmd on float64 rows, one block; of A, which has N != M, the first 400 rows.
GOLDEN_POLYNOMIAL = {
    "A": 1.448002626175862,
    "B": 0.02195973665986184,
    "C": 0.007643284050710797,
    "D": 54.576645536336365,
    "E": -0.05890181903235714,
    "F": 37.97293803418802,
}
# The same with kid_kernel="rbf", sigma 10.
GOLDEN_RBF = {
    "A": 0.002581239636759637,
    "B": 0.008255430543991027,
    "C": 0.006885043707479999,
    "D": 0.8639494810996784,
    "E": -0.0007879249110249731,
    "F": 0.01377386651114465,
}
# torch-fidelity 0.4.0, metric_kid.kid_features_to_metric(fake, real), 100 subsets, rng_seed 2020, float64 rows.
GOLDEN_SUBSETS = [
    ("A", 100, 1.5518429111882737, 0.39521515801290596),
    ("A", 200, 1.546663861670518, 0.19923037207802924),
    ("B", 500, 0.02195471674155577, 0.0013668752379901344),
    ("C", 100, 0.0074136872179534664, 0.0021847003236692536),
    ("C", 200, 0.00762585945445084, 0.0009152891600183153),
    ("D", 200, 54.57764807207679, 0.28233939096629224),
    ("E", 100, -0.0693439973545533, 0.2581334743069298),
    ("E", 300, -0.058172475668165614, 0.07812340417790574),
    ("F", 20, 38.60068888888888, 17.824298217349615),
]


def by_definition(real: Tensor, fake: Tensor, function: Callable[[Tensor, Tensor], float]) -> float:
    """Mean kernel of distinct pairs within the sets, minus twice the mean kernel between them."""

    def within(rows: Tensor) -> float:
        values = [function(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        return sum(values) / len(values)

    between = [function(x, y) for x in real for y in fake]
    return within(real) + within(fake) - 2 * sum(between) / len(between)


def size(real: Tensor, fake: Tensor) -> float:
    """What rounding errors of the cubic kernel distance are measured against: its largest kernel value."""
    rows = torch.cat([real, fake])
    return (rows.square().sum(dim=1).max().item() / rows.shape[1] + 1) ** 3


@pytest.mark.parametrize(("case", "expected"), GOLDEN_POLYNOMIAL.items())
def test_golden_polynomial(golden: Golden, case: str, expected: float) -> None:
    real, fake, _ = golden(case)
    assert kernel_distance(real[: len(fake)], fake).value.item() == pytest.approx(expected, rel=1e-9)


def test_golden_polynomial_of_sets_of_unequal_size(golden: Golden) -> None:
    """The value is k-diffusion's (commit 4601bf0), evaluation.squared_mmd on float64 rows."""
    real, fake, _ = golden("A")
    assert kernel_distance(real, fake).value.item() == pytest.approx(1.5693323316465655, rel=1e-9)


@pytest.mark.parametrize(("case", "expected"), GOLDEN_RBF.items())
def test_golden_rbf(golden: Golden, case: str, expected: float) -> None:
    real, fake, _ = golden(case)
    distance = kernel_distance(real[: len(fake)], fake, kernel="rbf", sigma=10.0).value
    assert distance.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("case", "subset_size", "mean", "std"), GOLDEN_SUBSETS)
def test_golden_subsets(golden: Golden, case: str, subset_size: int, mean: float, std: float) -> None:
    real, fake, _ = golden(case)
    distance = kernel_distance(real, fake, subsets=100, subset_size=subset_size, seed=2020)
    assert distance.value.item() == pytest.approx(mean, rel=1e-9)
    assert distance.std.item() == pytest.approx(std, rel=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param({}, {}, id="defaults"),
        pytest.param(
            {"degree": 2, "gamma": 0.5, "coef0": 0.25},
            {"kid_kernel_poly_degree": 2, "kid_kernel_poly_gamma": 0.5, "kid_kernel_poly_coef0": 0.25},
            id="polynomial",
        ),
        pytest.param({"kernel": "rbf"}, {"kid_kernel": "rbf"}, id="rbf defaults"),
        pytest.param(
            {"kernel": "rbf", "sigma": 3.0}, {"kid_kernel": "rbf", "kid_kernel_rbf_sigma": 3.0}, id="narrow rbf"
        ),
    ],
)
def test_agrees_with_torch_fidelity(pair: tuple[Tensor, Tensor], ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    real, fake = (rows.double() for rows in pair)
    expected = kernel_mmd(fake.numpy(), real.numpy(), **theirs)
    assert kernel_distance(*pair, **ours).value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    subsets = {"kid_subsets": 7, "kid_subset_size": 31, "rng_seed": 11, "verbose": False}
    expected = kid_features_to_metric(fake, real, **subsets, **theirs)
    drawn = kernel_distance(*pair, subsets=7, subset_size=31, seed=11, **ours)
    mean, std = drawn.value.item(), drawn.std.item()
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9, abs=1e-12)
    assert std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features:UserWarning")
def test_agrees_with_torchmetrics(pair: tuple[Tensor, Tensor]) -> None:
    real, fake = pair
    metric = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=len(real)).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    assert kernel_distance(real, fake).value.item() == pytest.approx(metric.compute()[0].item(), rel=1e-9)


def test_polynomial_by_definition(cloud: Cloud) -> None:
    real, fake = cloud(0, 6, 3), cloud(1, 4, 3, centre=0.5)
    expected = by_definition(real, fake, lambda x, y: (float(x @ y) / 3 + 1) ** 3)
    assert kernel_distance(real, fake).value.item() == pytest.approx(expected, rel=1e-11)


def test_rbf_by_definition(cloud: Cloud) -> None:
    real, fake = cloud(0, 6, 3), cloud(1, 4, 3, centre=0.5)
    expected = by_definition(real, fake, lambda x, y: exp(-float((x - y).square().sum()) / (2 * 1.5**2)))
    assert kernel_distance(real, fake, kernel="rbf", sigma=1.5).value.item() == pytest.approx(expected, rel=1e-11)


def test_std_is_the_jackknife_less_what_it_counts_twice(cloud: Cloud) -> None:
    real, fake, kernel = cloud(0, 6, 3), cloud(1, 5, 3, centre=0.5), Kernel()

    def jackknife(values: list[Tensor]) -> float:
        return (len(values) - 1) * torch.stack(values).var(correction=0).item()

    without_real = [kernel_distance(torch.cat([real[:i], real[i + 1 :]]), fake).value for i in range(6)]
    without_fake = [kernel_distance(real, torch.cat([fake[:j], fake[j + 1 :]])).value for j in range(5)]
    pairs = 0.0
    for rows in (real, fake):
        gram = kernel(rows, rows)
        n = len(gram)
        means = (gram.sum(dim=1) - gram.diagonal()) / (n - 1)
        rest = (gram - means[:, None] - means + means.mean()).fill_diagonal_(0.0)
        pairs += 2 * rest.square().sum().item() / (n * (n - 1)) ** 2
    gram = kernel(real, fake)
    rest = gram - gram.mean(dim=1, keepdim=True) - gram.mean(dim=0) + gram.mean()
    pairs += 4 * rest.square().sum().item() / 30**2
    whole = jackknife(without_real) + jackknife(without_fake)
    assert whole - pairs > whole / 2
    assert kernel_distance(real, fake).std.item() == pytest.approx((whole - pairs) ** 0.5, rel=1e-10)


@pytest.mark.parametrize("options", [{}, {"kernel": "rbf", "sigma": 3.0}])
@pytest.mark.parametrize(("centre", "spread"), [(0.7, 1.2), (0.2, 1.0), (0.0, 1.0)], ids=["unlike", "close", "equal"])
@pytest.mark.parametrize(("n", "m"), [(60, 45), (100, 30)])
def test_std_tells_the_spread_over_200_independent_draws(
    options: dict[str, Any], centre: float, spread: float, n: int, m: int
) -> None:
    draw = torch.Generator().manual_seed(0)
    values, stds = [], []
    for _ in range(200):
        real = torch.randn(n, 8, generator=draw)
        fake = centre + spread * torch.randn(m, 8, generator=draw)
        distance = kernel_distance(real, fake, **options)
        values.append(distance.value)
        stds.append(distance.std)
    ratio = torch.stack(stds).mean() / torch.stack(values).std()
    assert ratio.item() == pytest.approx(1.0, abs=0.15)


# cmmd-pytorch (commit f7673a9), distance.mmd on float64 rows of length 1.
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("A", 0.3312624075197945),
        ("B", 0.021056151854104144),
        ("C", 0.12981437545778185),
        ("D", 10.095235593009955),
        ("E", 0.0018283059355361786),
        ("F", 1.1637798630421692),
    ],
)
def test_golden_cmmd(golden: Golden, case: str, expected: float) -> None:
    real, fake = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in golden(case)[:2])
    assert cmmd(real, fake).item() == pytest.approx(expected, abs=1e-8)
    assert cmmd(real.float(), fake.float()).item() == pytest.approx(expected, abs=2e-4)


def test_cmmd_by_definition(cloud: Cloud) -> None:
    real, fake = (rows / rows.norm(dim=1, keepdim=True) for rows in (cloud(0, 9, 4), cloud(1, 7, 4, centre=0.5)))

    def kernels(x: Tensor, y: Tensor) -> Tensor:
        return torch.tensor([[exp(-float((a - b).square().sum()) / (2 * 0.5**2)) for b in y] for a in x]).double()

    xx, yy, xy = kernels(real, real), kernels(fake, fake), kernels(real, fake)
    biased = xx.mean() + yy.mean() - 2 * xy.mean()
    assert cmmd(real, fake, sigma=0.5, scale=10.0).item() == pytest.approx(10 * biased.item(), rel=1e-5)
    unbiased = (xx.sum() - 9) / 72 + (yy.sum() - 7) / 42 - 2 * xy.mean()
    assert cmmd(real, fake, sigma=0.5, scale=1.0, unbiased=True).item() == pytest.approx(unbiased.item(), rel=1e-5)


def test_cmmd_of_identical_sets_is_zero(cloud: Cloud) -> None:
    real = cloud(0, 40, 8)
    assert cmmd(real, real).item() == pytest.approx(0.0, abs=1e-12)
    assert cmmd(real, real.flip(0)).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("distance", [lambda x, y: kernel_distance(x, y).value, cmmd], ids=["kid", "cmmd"])
def test_grows_with_the_shift_of_the_mean(cloud: Cloud, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
    real, fake = cloud(0, 60, 6), cloud(1, 50, 6)
    values = [distance(real, fake + shift).item() for shift in (0.5, 1.0, 2.0, 4.0)]
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_what_is_known_of_the_real_rows_is_not_computed_again(cloud: Cloud) -> None:
    real, fake, kernel = cloud(0, 30, 5), cloud(1, 20, 5), Kernel("rbf", sigma=2.0)
    sums = within_sums(real, kernel)
    other = exact_distance(real, fake, kernel, real_sums=sums._replace(rows=2 * sums.rows))[0].value
    assert other != exact_distance(real, fake, kernel)[0].value


def test_unbiased_for_equal_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    values = [
        kernel_distance(torch.randn(20, 8, generator=draw), torch.randn(15, 8, generator=draw)).value
        for _ in range(300)
    ]
    mean, std = torch.stack(values).mean().item(), torch.stack(values).std().item()
    assert abs(mean) < 3 * std / 300**0.5


def test_identical_sets_lie_below_zero_by_the_share_of_the_diagonal(cloud: Cloud) -> None:
    """Of a set with itself, the between term holds the diagonal and the within terms do not."""
    real = cloud(0, 40, 8)
    gram = (real @ real.T / 8 + 1) ** 3
    off_diagonal = (gram.sum() - gram.trace()) / (40 * 39)
    expected = 2 * (off_diagonal - gram.mean()).item()
    assert expected < 0
    assert kernel_distance(real, real).value.item() == pytest.approx(expected, rel=1e-10)


def test_one_subset_of_all_rows_is_the_exact_statistic(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 30, 5, centre=0.5)
    drawn = kernel_distance(real, fake, subsets=1, subset_size=30)
    assert drawn.value.item() == pytest.approx(kernel_distance(real, fake).value.item(), rel=1e-12)
    assert drawn.std.item() == 0.0


def test_subsets_depend_on_the_seed_alone(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 30, 5, centre=0.5)
    before = torch.get_rng_state()
    first, again, other = (
        kernel_distance(real, fake, subsets=5, subset_size=10, seed=seed).value for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), before)


def test_known_sums_of_the_real_rows_give_the_same_distance(cloud: Cloud) -> None:
    real, fake, kernel = cloud(0, 30, 5), cloud(1, 20, 5, centre=0.5), Kernel()
    sums = within_sums(real, kernel)
    gram = kernel(real, real).fill_diagonal_(0.0)
    torch.testing.assert_close(sums.rows, gram.sum(dim=1), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(sums.squares, gram.square().sum(), rtol=1e-12, atol=0.0)
    influence, std = exact_distance(real, fake, kernel, real_sums=sums)
    assert (influence.value, std) == kernel_distance(real, fake)


@pytest.mark.parametrize("options", [{}, {"kernel": "rbf"}])
def test_tile_size_does_not_matter(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    real, fake = cloud(0, 101, 8), cloud(1, 67, 8, centre=0.5)
    expected = kernel_distance(real, fake, **options)
    for tile in (1, 7, 13):
        monkeypatch.setattr(kernel_sums, "tile_size", lambda *_, tile=tile: tile)
        distance = kernel_distance(real, fake, **options)
        assert distance.value.item() == pytest.approx(expected.value.item(), rel=1e-10)
        assert distance.std.item() == pytest.approx(expected.std.item(), rel=1e-10)


def test_far_off_mean_costs_the_rbf_kernel_no_digits(cloud: Cloud) -> None:
    real, fake = cloud(0, 50, 8), cloud(1, 40, 8, centre=0.5)
    expected = kernel_distance(real, fake, kernel="rbf").value.item()
    assert kernel_distance(real + 1e6, fake + 1e6, kernel="rbf").value.item() == pytest.approx(expected, rel=1e-6)


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions)
def test_symmetric(cloud: Cloud, seed: int, n: int, m: int, d: int) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5, spread=0.7)
    there, back = kernel_distance(real, fake), kernel_distance(fake, real)
    assert back.value.item() == pytest.approx(there.value.item(), abs=1e-12 * size(real, fake))
    assert back.std.item() == pytest.approx(there.std.item(), abs=1e-12 * size(real, fake))


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, data=st.data())
def test_order_of_rows_does_not_matter(cloud: Cloud, seed: int, n: int, m: int, d: int, data: Any) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    expected = kernel_distance(real, fake).value.item()
    shuffled = kernel_distance(
        real[data.draw(st.permutations(range(n)))], fake[data.draw(st.permutations(range(m)))]
    ).value
    assert shuffled.item() == pytest.approx(expected, abs=1e-12 * size(real, fake))


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions)
def test_turning_both_sets_does_not_matter(cloud: Cloud, seed: int, n: int, m: int, d: int) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    turn = torch.linalg.qr(cloud(seed + 2, d, d)).Q
    for name, tolerance in (("polynomial", 1e-12 * size(real, fake)), ("rbf", 1e-12)):
        expected = kernel_distance(real, fake, kernel=name).value.item()
        turned = kernel_distance(real @ turn, fake @ turn, kernel=name).value.item()
        assert turned == pytest.approx(expected, abs=tolerance)


@law
@given(seed=seeds, n=counts, m=counts, d=dimensions, shift=st.floats(-100, 100))
def test_moving_both_sets_does_not_matter_to_the_rbf_kernel(
    cloud: Cloud, seed: int, n: int, m: int, d: int, shift: float
) -> None:
    real, fake = cloud(seed, n, d), cloud(seed + 1, m, d, centre=0.5)
    expected = kernel_distance(real, fake, kernel="rbf", sigma=2.0).value.item()
    moved = kernel_distance(real + shift, fake + shift, kernel="rbf", sigma=2.0).value.item()
    assert moved == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "linear"}, "'polynomial' or 'rbf', but got 'linear'"),
        ({"kernel": "rbf", "sigma": 0.0}, "`sigma` must be positive, but got 0.0"),
        ({"subsets": 0}, "`subsets` must be >= 1"),
        ({"subsets": 2, "subset_size": 1}, "`subset_size` >= 2, but got 2 and 1"),
        ({"subsets": 2, "subset_size": 11}, r"`subset_size=11` exceeds the smaller set \(12 real and 10 fake rows\)"),
    ],
)
def test_impossible_options_are_refused(cloud: Cloud, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_distance(cloud(0, 12, 3), cloud(1, 10, 3), **options)


@pytest.mark.parametrize(("n", "m"), [(2, 5), (5, 2)])
def test_exact_statistic_needs_three_rows(cloud: Cloud, n: int, m: int) -> None:
    with pytest.raises(ValueError, match=f"at least 3 rows a set, but got {n} real and {m} fake"):
        kernel_distance(cloud(0, n, 3), cloud(1, m, 3))


@pytest.mark.parametrize("options", [{}, {"degree": 2, "gamma": 0.5, "coef0": 0.25}, {"kernel": "rbf", "sigma": 3.0}])
def test_influences_are_what_leaving_a_row_out_changes(
    cloud: Cloud, left_out: LeftOut, options: dict[str, Any]
) -> None:
    """Exactly: they are the jackknife's."""
    real, fake = cloud(0, 40, 4), cloud(1, 30, 4, centre=0.7, spread=1.4)
    found = kernel_influence(real, fake, **options)
    assert found.value == kernel_distance(real, fake, **options).value
    assert left_out(lambda rows: kernel_distance(real, rows, **options).value, fake, found.fake) < 1e-9
    assert left_out(lambda rows: kernel_distance(rows, fake, **options).value, real, found.real) < 1e-9


@pytest.mark.parametrize(("unbiased", "tolerance"), [(True, 1e-9), (False, 0.05)])
def test_influences_on_cmmd(cloud: Cloud, left_out: LeftOut, unbiased: bool, tolerance: float) -> None:
    real, fake = cloud(0, 90, 4), cloud(1, 80, 4, centre=0.7, spread=1.4)
    options = {"sigma": 3.0, "scale": 50.0, "unbiased": unbiased}
    metric = ClipDiscrepancy("cmmd", extractor="wavelet", **options)
    score = metric.score(metric.prepare(real), fake)
    assert score.value == score.influence.value
    assert score.value.item() == pytest.approx(cmmd(real, fake, **options).item(), rel=1e-9)
    assert left_out(lambda rows: cmmd(real, rows, **options), fake, score.influence.fake) < tolerance
    assert left_out(lambda rows: cmmd(rows, fake, **options), real, score.influence.real) < tolerance


def test_influences_of_the_linear_kernel(cloud: Cloud) -> None:
    """With means m and centred rows c: ``2 c·(m - other m) / D``, less a share of ``|c|²`` that vanishes with many."""
    real, fake = cloud(0, 9, 4), cloud(1, 7, 4, centre=0.7)
    found = kernel_influence(real, fake, degree=1)
    for rows, other, influences in ((fake, real, found.fake), (real, fake, found.real)):
        centred = rows - rows.mean(dim=0)
        squares = centred.square().sum(dim=1)
        expected = 2 * centred @ (rows.mean(dim=0) - other.mean(dim=0))
        expected -= 2 * (squares - squares.mean()) / (len(rows) - 2)
        torch.testing.assert_close(influences, expected / 4, rtol=1e-9, atol=1e-12)


# Printed when the error came from sums over the influences.
@pytest.mark.parametrize(
    ("case", "polynomial", "rbf"),
    [
        ("A", 0.1619538260787428, 0.00025339545767669814),
        ("B", 0.0013411330832829426, 0.0004301424426005821),
        ("C", 0.0009551218878168307, 0.0004275417984962052),
        ("E", 0.03254502588869072, 0.00032712139633577154),
    ],
)
def test_golden_error(golden: Golden, case: str, polynomial: float, rbf: float) -> None:
    real, fake, _ = golden(case)
    for kind, expected in ((PolynomialDistance, polynomial), (RbfDistance, rbf), (ClipDiscrepancy, 1000 * rbf)):
        metric: Metric = kind("distance", extractor="wavelet")
        score = metric.score(metric.prepare(real), fake)
        assert score.error.item() == pytest.approx(expected, rel=1e-9)
        assert score.error <= score.influence.std
        assert (len(score.influence.fake), len(score.influence.real)) == (len(fake), len(real))


def test_the_mean_over_subsets_has_no_influence(cloud: Cloud) -> None:
    real, fake = cloud(0, 30, 5), cloud(1, 20, 5)
    metric = PolynomialDistance("kid", extractor="wavelet", subsets=4, subset_size=10)
    score = metric.score(metric.prepare(real), fake)
    assert score.influence is None
    assert score.error > 0
