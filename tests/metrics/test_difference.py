"""Paired differences against simulations and closed forms."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score
from lightning_synthqual.metrics.difference import Difference, difference, paired_difference
from lightning_synthqual.metrics.frechet import FrechetDistance
from lightning_synthqual.metrics.influences import compact, pack_influences, unpack_influences
from lightning_synthqual.metrics.kernel import PolynomialDistance

DIMENSION, ROWS = 16, 250
Generator = Callable[[Tensor], Tensor]


def gap_of_means(fake: Tensor, real: Tensor) -> Score:
    value = fake.mean() - real.mean()
    return Score(value, influence=Influence(value, fake - fake.mean(), real.mean() - real))


def draw(count: int, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_is_common_to_both_cancels():
    fake, real, own = draw(500, 0), draw(300, 1), draw(500, 2)
    found = difference(gap_of_means(fake + 0.1 * own, real), gap_of_means(fake, real), paired=True)
    assert found.paired
    assert found.value == pytest.approx(0.1 * own.mean().item(), rel=1e-9)
    assert found.std == pytest.approx(0.1 * own.std().item() / 500**0.5, rel=1e-6)


def test_without_pairs_the_errors_add_up():
    one, other = gap_of_means(draw(500, 0), draw(300, 1)), gap_of_means(draw(500, 2), draw(300, 3))
    expected = (one.influence.std**2 + other.influence.std**2).sqrt().item()  # type: ignore[union-attr]
    assert difference(one, other, paired=False) == pytest.approx((float(one.value - other.value), expected, False))
    shorter = gap_of_means(draw(400, 0), draw(300, 1))
    assert not difference(one, shorter, paired=True).paired
    assert difference(Score(1.0, 0.3), Score(3.0, 0.4), paired=True) == pytest.approx((-2.0, 0.5, False))
    assert difference(Score(1.0), Score(3.0, 0.4), paired=True) == (-2.0, None, False)


@given(st.floats(0.5, 1.0), st.floats(0.5, 1.0), st.integers(0, 100))
def test_a_second_order_makes_the_error_smaller(first, second, seed):
    real = draw(50, 1)
    scores = [gap_of_means(draw(60, seed + offset), real) for offset in (0, 1)]
    whole = paired_difference(*scores).error
    known = [
        Score(each.value, share * each.influence.std, each.influence)  # type: ignore[union-attr,operator]
        for each, share in zip(scores, (first, second), strict=True)
    ]
    part = paired_difference(*known).error
    assert 0 < float(part or 0) <= float(whole or 0) * (1 + 1e-12)
    if first == second == 1:
        assert part == pytest.approx(whole)


def test_of_two_real_sets_both_count():
    """The spread over 400 draws of a difference of the same images against two real sets."""
    values, errors = [], []
    for seed in range(400):
        fake, train, held_out = draw(80, 3 * seed), draw(60, 3 * seed + 1), 2 * draw(40, 3 * seed + 2)
        found = paired_difference(gap_of_means(fake, held_out), gap_of_means(fake, train), same_real=False)
        assert found.influence is not None
        assert found.influence.real.mean().abs() < 1e-12
        values.append(float(found.value))
        errors.append(float(found.error or 0))
    spread = torch.tensor(values).std().item()
    assert spread == pytest.approx((1 / 60 + 4 / 40) ** 0.5, rel=0.1)
    assert torch.tensor(errors).square().mean().sqrt().item() == pytest.approx(spread, rel=0.1)


def test_differences_in_standard_errors():
    assert Difference(-1.0, 0.5, True).z == -2.0
    assert Difference(-1.0, None, False).z is None
    assert Difference(0.0, 0.0, True).z is None


def test_stored_influences_are_float32_and_come_back():
    influence = gap_of_means(draw(5, 0), draw(3, 1)).influence
    assert influence is not None
    tensors = pack_influences({"fd_wavelet": influence, "lost": influence})
    assert {key: tensor.dtype for key, tensor in tensors.items()}["fd_wavelet.real"] == torch.float32
    found = unpack_influences(tensors, {"fd_wavelet": float(influence.value)})
    assert list(found) == ["fd_wavelet"]
    assert all(torch.equal(a, b) for a, b in zip(found["fd_wavelet"], compact(influence), strict=True))


def mixing(draw: torch.Generator) -> Tensor:
    return torch.randn(DIMENSION, DIMENSION, generator=draw, dtype=torch.float64) / DIMENSION**0.5


def generators(case: str, draw: torch.Generator) -> tuple[Generator, Generator, Generator, bool]:
    """The data, generators a and b, and whether both are equally far from the data."""
    weights, change, shift = mixing(draw), mixing(draw), 0.05 * torch.randn(DIMENSION, generator=draw).double()

    def plain(z: Tensor) -> Tensor:
        return torch.tanh(z @ weights)

    def changed(z: Tensor) -> Tensor:
        return torch.tanh(z @ (weights + 0.05 * change))

    def turned(z: Tensor) -> Tensor:
        return torch.tanh(z @ torch.linalg.matrix_exp(0.05 * (change - change.T)) @ weights)

    cases: dict[str, tuple[Generator, Generator, Generator, bool]] = {
        "equal distributions": (plain, plain, turned, True),
        "on either side": (plain, lambda z: plain(z) + shift, lambda z: plain(z) - shift, True),
        "one is the data": (plain, plain, changed, False),
        "off the data": (lambda z: plain(z) + 4 * shift, plain, changed, False),
        "far from the data": (lambda z: 1.5 * plain(z) + 0.5, plain, turned, True),
    }
    return cases[case]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FrechetDistance, PolynomialDistance])
@pytest.mark.parametrize(
    "case", ["equal distributions", "on either side", "one is the data", "off the data", "far from the data"]
)
def test_the_error_tells_the_spread_of_differences(kind: type[Metric], case: str) -> None:
    draw = torch.Generator().manual_seed(0)
    data, a, b, equal = generators(case, draw)
    metric = kind("distance", extractor="wavelet")
    differences, errors = [], []
    for _ in range(200):
        latents, others = (torch.randn(ROWS, DIMENSION, generator=draw, dtype=torch.float64) for _ in range(2))
        state = metric.prepare(data(others))
        one, other = (metric.score(state, generator(latents)) for generator in (a, b))
        differences.append(one.value - other.value)
        errors.append(torch.as_tensor(paired_difference(one, other).error))
    error, found = torch.stack(errors), torch.stack(differences)
    assert 0.85 < error.mean() / found.std() < 1.25
    if equal:
        assert (found.abs() > 2 * error).double().mean() < 0.08
