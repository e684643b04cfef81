import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from lightning_synthqual.metrics import inception_score
from lightning_synthqual.metrics.inception import InceptionScore50k, inception_influence

DIGESTS = {
    1000: "847b928bb9c3a999bc956611092de0605c5b08ae37f2e3f48e426e6b404aa495",
    1003: "c53bb30ef4f51ebfb8ac5ef23cc6c3e2a0fd72132c30d2a521cd12645b9156be",
}
# torch-fidelity 0.4.0, metric_isc.isc_features_to_metric (rng_seed 2020); without the shuffle StyleGAN3 (commit
# c233a91) prints the same on float64 probabilities: rows, splits, seed, mean, std.
GOLDEN = [
    (1000, 10, 2020, 30.979027101697312, 2.310138331000755),
    (1000, 10, None, 30.922951750586776, 2.5437236495627995),
    (1000, 1, None, 79.37886294354873, 0.0),
    (1003, 10, 2020, 28.672865740990012, 2.5341909322143006),
    (1003, 10, None, 28.397420830282734, 1.2780923562163133),
    (1003, 1, None, 70.39024700304127, 0.0),
]


@cache
def logits(count: int) -> Tensor:
    draw = np.random.RandomState(1011 + (count == 1003))
    rows = 1.5 * draw.randn(count, 1008)
    rows[np.arange(count), draw.randint(0, 1008, count)] += 9.0
    rows = (np.round(rows * 2.0**14) / 2.0**14).astype(np.float32)
    assert hashlib.sha256(rows.tobytes()).hexdigest() == DIGESTS[count]
    return torch.from_numpy(rows)


@pytest.mark.parametrize(("count", "splits", "seed", "mean", "std"), GOLDEN)
def test_golden(count: int, splits: int, seed: int | None, mean: float, std: float) -> None:
    score = inception_score(logits(count), splits=splits, seed=seed)
    assert score.mean.item() == pytest.approx(mean, rel=1e-9)
    assert score.std.item() == pytest.approx(std, rel=1e-9, abs=1e-9)
    assert score.mean.dtype == score.std.dtype == torch.float64


@pytest.mark.parametrize("splits", [1, 3, 10])
@pytest.mark.parametrize("shuffle", [False, True])
def test_agrees_with_torch_fidelity(splits: int, shuffle: bool) -> None:
    rows = 4 * torch.randn(57, 20, generator=torch.Generator().manual_seed(0))
    expected = isc_features_to_metric(rows, splits=splits, shuffle=shuffle, rng_seed=7)
    score = inception_score(rows, splits=splits, seed=7 if shuffle else None)
    assert score.mean.item() == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert score.std.item() == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)


def test_certain_and_different_images_score_the_number_of_classes() -> None:
    """Probabilities of exactly 0 add nothing."""
    assert inception_score(1e6 * torch.eye(7).repeat(2, 1), splits=2).mean.item() == pytest.approx(7.0, rel=1e-12)


def test_equal_images_score_one() -> None:
    score = inception_score(torch.randn(1, 9).expand(20, -1))
    assert [v.item() for v in score] == pytest.approx([1.0, 0.0], abs=1e-12)


def test_a_constant_in_the_logits_does_not_matter() -> None:
    rows = torch.randn(40, 9, dtype=torch.float64)
    assert inception_score(rows + 1000.0).mean.item() == pytest.approx(inception_score(rows).mean.item(), rel=1e-9)


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    inception_score(torch.randn(40, 9), seed=3)
    torch.set_rng_state(before)
    first = inception_score(torch.randn(40, 9, generator=torch.Generator().manual_seed(0)), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == inception_score(torch.randn(40, 9, generator=torch.Generator().manual_seed(0)), seed=3)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (torch.zeros(1, 5), {}, "`logits` has 1 feature rows"),
        (torch.zeros(5, 5), {}, "`splits` must be from 1 to the number of rows, but got 10 for 5 rows"),
        (torch.zeros(5, 5), {"splits": 0}, "but got 0"),
        (torch.zeros(5, 5).long(), {}, "got torch.int64"),
        (torch.full((5, 5), torch.inf), {}, "NaN or infinity, first in row 0"),
    ],
)
def test_bad_input(rows: Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inception_score(rows, **options)


def drawn(count: int, draw: torch.Generator, classes: int = 10) -> Tensor:
    return 3 * torch.randn(count, classes, generator=draw, dtype=torch.float64)


def test_influences_are_what_leaving_a_row_out_changes(
    left_out: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], float],
) -> None:
    rows = drawn(200, torch.Generator().manual_seed(0), classes=6)
    found = inception_influence(rows, splits=1)
    assert len(found.real) == 0
    assert left_out(lambda rest: inception_score(rest, splits=1).mean, rows, found.fake) < 0.05


def test_influences_within_splits() -> None:
    """On the mean a row has its influence on its own split's score, times the share of all rows that the split has."""
    rows = drawn(63, torch.Generator().manual_seed(0))
    found = inception_influence(rows, splits=3)
    parts = [inception_influence(part, splits=1) for part in rows.split(21)]
    torch.testing.assert_close(found.value, torch.stack([part.value for part in parts]).mean())
    expected = torch.cat([part.fake for part in parts]) * 62 / (3 * 20)
    torch.testing.assert_close(found.fake, expected, rtol=1e-12, atol=1e-12)


def test_influences_are_in_the_order_of_the_rows() -> None:
    rows = drawn(60, torch.Generator().manual_seed(0))
    order = torch.from_numpy(np.random.RandomState(7).permutation(60))
    found, shuffled = inception_influence(rows, splits=4, seed=7), inception_influence(rows[order], splits=4)
    assert torch.equal(found.fake[order], shuffled.fake)
    assert found.value == shuffled.value == inception_score(rows, splits=4, seed=7).mean


def test_probabilities_of_zero_and_splits_of_one_row() -> None:
    assert inception_influence(1e6 * torch.eye(7).repeat(2, 1), splits=2).fake.abs().max() < 1e-12
    assert inception_influence(torch.randn(5, 4), splits=5).fake.tolist() == pytest.approx([0.0] * 5, abs=1e-12)


def test_the_published_error_is_the_spread_over_the_splits() -> None:
    score = InceptionScore50k("is50k", extractor="inception").score(None, logits(1000))
    expected = inception_score(logits(1000))
    assert (score.value, score.error) == (expected.mean, expected.std)
    assert torch.equal(score.influence.fake, inception_influence(logits(1000)).fake)
