from collections.abc import Callable
from math import e, inf, log
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_synthqual.metrics.vendi import VendiScore, vendi_influence, vendi_score

Golden = Callable[[str], tuple[Tensor, ...]]
Cloud = Callable[..., Tensor]

# Package vendi_score 0.0.3: score_dual(normalize=True) of the fake rows in float64 (of C, which has fewer rows than
# columns, score_K of the product of rows of length 1), by order q. Of orders below 1 only the one that works on the
# smaller side is right: on the other, eigenvalues of 1e-17 that should be 0 add up.
GOLDEN = {
    "A": {0.1: 58.2409235766795, 1.0: 37.61944533017661, 2.0: 30.533346882120934, float("inf"): 16.035384703430637},
    "B": {0.1: 229.29865412684012, 1.0: 36.54904546079469, 2.0: 5.401354321598171, float("inf"): 2.340884529140709},
    "C": {0.1: 278.7468953064862, 1.0: 176.5139317831079, 2.0: 137.81964301913507, float("inf"): 61.72232499162714},
    "D": {0.1: 13.424955038, 1.0: 1.0000069365168027, 2.0: 1.000000695257966, float("inf"): 1.0000003476289236},
    "E": {0.1: 49.28394551262382, 1.0: 2.871821380703772, 2.0: 1.61615868966148, float("inf"): 1.283466313970985},
    "F": {0.1: 2.8182330462880336, 1.0: 1.7834671744254151, 2.0: 1.439397972954381, float("inf"): 1.2152788450053886},
}


@pytest.mark.parametrize(("case", "q"), [(case, q) for case, values in GOLDEN.items() for q in values])
def test_golden(golden: Golden, case: str, q: float) -> None:
    _, fake, _ = golden(case)
    assert vendi_score(fake, q=q).item() == pytest.approx(GOLDEN[case][q], rel=1e-9)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 2.0, float("inf")])
@pytest.mark.parametrize("columns", [3, 7])
def test_orthogonal_rows_count_each_and_equal_rows_once(q: float, columns: int) -> None:
    rows = torch.diag(torch.arange(1.0, columns + 1))
    assert vendi_score(rows, q=q).item() == pytest.approx(columns, rel=1e-12)
    assert vendi_score(rows[:2], q=q).item() == pytest.approx(2.0, rel=1e-12)
    assert vendi_score(torch.ones(5, columns), q=q).item() == pytest.approx(1.0, rel=1e-12)


def test_shares_of_directions() -> None:
    """Three rows one way and one the other: a probability of 3/4 and one of 1/4."""
    rows = torch.eye(2)[[0, 0, 0, 1]]
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25))
    assert vendi_score(rows).item() == pytest.approx(e**entropy, rel=1e-12)
    assert vendi_score(rows, q=2.0).item() == pytest.approx(1 / (0.75**2 + 0.25**2), rel=1e-12)
    assert vendi_score(rows, q=float("inf")).item() == pytest.approx(1 / 0.75, rel=1e-12)
    assert vendi_score(rows, q=0.0).item() == 2.0


def test_order_two_is_the_mean_squared_cosine(cloud: Cloud) -> None:
    for rows in (cloud(0, 30, 5), cloud(0, 5, 30)):
        cosines = torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(rows).T
        expected = 1 / cosines.square().mean().item()
        assert vendi_score(rows, q=2.0).item() == pytest.approx(expected, rel=1e-10)


def test_orders_near_one_lead_to_the_order_one(cloud: Cloud) -> None:
    rows = cloud(0, 20, 6)
    for q in (1 - 1e-6, 1 + 1e-6):
        assert vendi_score(rows, q=q).item() == pytest.approx(vendi_score(rows).item(), rel=1e-5)


def test_lengths_order_and_repetition_do_not_matter(cloud: Cloud) -> None:
    rows = cloud(0, 20, 6)
    expected = vendi_score(rows).item()
    for other in (rows * torch.rand(20, 1).add(0.1), rows.flip(0), rows.repeat(3, 1), rows.float()):
        assert vendi_score(other).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "q", "error", "message"),
    [
        (torch.eye(3), -1.0, ValueError, "`q` must be at least 0, but got -1"),
        (torch.eye(3), float("nan"), ValueError, "`q` must be at least 0, but got nan"),
        (torch.eye(3)[:1], 1.0, ValueError, "`features` has 1 feature rows"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 1.0, ValueError, "Row 1 of `features` is zero"),
        (torch.eye(3).int(), 1.0, ValueError, "floating point tensor, but got torch.int32"),
        ([[1.0]], 1.0, TypeError, "floating point tensor, but got list"),
        (torch.full((3, 3), torch.nan), 1.0, ValueError, "NaN or infinity, first in row 0"),
    ],
)
def test_bad_input(rows: Any, q: float, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vendi_score(rows, q=q)


def test_the_metric_is_the_function_of_generated_features(cloud: Cloud) -> None:
    metric, rows = VendiScore("vendi", extractor="wavelet", q=2.0), cloud(0, 20, 6)
    assert metric.prepare(cloud(1, 9, 6)) is None
    score = metric.score(None, rows)
    assert score.value.item() == pytest.approx(vendi_score(rows, q=2.0).item(), rel=1e-12)
    assert score.error == vendi_influence(rows, q=2.0).std
    assert metric.direction == "max"
    with pytest.raises(ValueError, match=r"\['q'\]"):
        VendiScore("vendi", extractor="wavelet", q=-0.5)


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, inf])
def test_influences_are_what_leaving_a_row_out_changes(
    cloud: Cloud, left_out: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], float], q: float
) -> None:
    rows = cloud(1, 200, 4, centre=0.7, spread=1.4)
    found = vendi_influence(rows, q=q)
    assert found.value.item() == pytest.approx(vendi_score(rows, q=q).item(), rel=1e-12)
    assert len(found.real) == 0
    assert left_out(lambda rest: vendi_score(rest, q=q), rows, found.fake) < 0.05


@pytest.mark.parametrize(("count", "columns"), [(30, 5), (5, 30), (20, 20)])
def test_influences_of_order_two_follow_from_mean_squared_cosines(cloud: Cloud, count: int, columns: int) -> None:
    rows = torch.nn.functional.normalize(cloud(0, count, columns))
    squares = (rows @ rows.T).square().mean(dim=1)
    expected = -2 * (squares - squares.mean()) / squares.mean().square()
    torch.testing.assert_close(vendi_influence(rows, q=2.0).fake, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("q", [0.5, 1.0, 3.0, inf])
def test_influences_do_not_depend_on_which_matrix_is_decomposed(cloud: Cloud, q: float) -> None:
    """Columns of zeros change nothing but that there are fewer rows than columns then."""
    rows = cloud(0, 20, 6)
    wide = torch.cat([rows, torch.zeros(20, 30)], dim=1)
    expected = vendi_influence(rows, q=q).fake
    torch.testing.assert_close(vendi_influence(wide, q=q).fake, expected, rtol=1e-6, atol=1e-9)


def test_the_number_of_directions_has_no_error(cloud: Cloud) -> None:
    score = VendiScore("vendi", extractor="wavelet", q=0.0).score(None, cloud(0, 20, 6))
    assert score.value == 6
    assert score.error is None


@pytest.mark.parametrize("q", [1.0, 2.0])
def test_error_tells_the_spread_over_100_independent_draws(q: float) -> None:
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(16, 16, generator=draw)
    found = [vendi_influence((torch.randn(300, 16, generator=draw) @ mixing).relu(), q=q) for _ in range(100)]
    ratio = torch.stack([each.std for each in found]).mean() / torch.stack([each.value for each in found]).std()
    assert ratio.item() == pytest.approx(1.0, abs=0.2)
