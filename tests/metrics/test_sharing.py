"""What metrics have in common is computed once, and kept no longer than until all have had it."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_synthqual.metrics.base import as_scores
from lightning_synthqual.metrics.manifold import DensityCoverageMetric, PrecisionRecallMetric
from lightning_synthqual.metrics.sharing import Shared
from lightning_synthqual.metrics.views import Runtime

Cloud = Callable[..., Tensor]
KINDS = (PrecisionRecallMetric, DensityCoverageMetric)


def test_a_result_is_kept_until_everyone_has_had_it() -> None:
    shared: Shared[Tensor] = Shared()
    rows, calls = torch.ones(3), []

    def compute() -> Tensor:
        calls.append(1)
        return torch.full((1,), len(calls))

    assert [int(shared.take(who, "ab", (rows,), compute)) for who in "ab"] == [1, 1]
    assert [int(shared.take(who, "ab", (rows.view(3),), compute)) for who in "ba"] == [2, 2]
    assert int(shared.take("a", "ab", (rows,), compute)) == 3
    assert int(shared.take("a", "ab", (rows,), compute)) == 4  # who has had it wants another one
    assert int(shared.take("b", "ab", (rows + 1,), compute)) == 5
    assert int(shared.take("a", "ab", (rows[:2],), compute)) == 6
    alive = weakref.ref(result := shared.take("b", "b", (rows,), compute))
    del result
    assert alive() is None


def scores(
    kinds: tuple[type[PrecisionRecallMetric], ...], real: Tensor, *fakes: Tensor
) -> list[dict[str, tuple[float, float]]]:
    """Values and errors of metrics that work together, for each set of generated rows."""
    runtime = Runtime()
    metrics = [kind(kind.family, extractor="wavelet").with_runtime(runtime) for kind in kinds]
    states = [metric.prepare(real) for metric in metrics]
    found = []
    for fake in fakes:
        parts = [as_scores(each, each.score(state, fake)).values for each, state in zip(metrics, states, strict=True)]
        found.append({name: (float(v.value), float(v.error)) for part in parts for name, v in part.items()})
    return found


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of pairs in the products of rows."""
    pairs: list[int] = []
    product = torch.mm

    def watched(x: Tensor, y: Tensor, *, out: Tensor) -> Tensor:
        pairs.append(out.numel())
        return product(x, y, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    return pairs


@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1]], ids=["precision first", "density first"])
def test_density_and_coverage_cost_nothing_beside_precision_and_recall(
    cloud: Cloud, products: list[int], kinds: tuple[type[PrecisionRecallMetric], ...]
) -> None:
    real, fakes = cloud(0, 90, 5), (cloud(1, 70, 5, centre=0.5), cloud(2, 70, 5))
    expected = [{**one, **other} for one, other in zip(*(scores((kind,), real, *fakes) for kind in kinds), strict=True)]
    products.clear()
    scores(KINDS[:1], real, *fakes)
    alone = sum(products)
    products.clear()
    found = scores(kinds, real, *fakes)
    assert found == expected
    assert sum(products) == alone == 90 * 90 + 2 * (70 * 70 + 70 * 90)


def test_a_metric_of_another_extractor_takes_no_part(cloud: Cloud) -> None:
    runtime = Runtime()
    metrics = [kind(kind.family, extractor=name).with_runtime(runtime) for kind, name in zip(KINDS, "ab", strict=True)]
    assert [set(metric.prepare(cloud(0, 20, 3)).radii) for metric in metrics] == [{3}, {5}]


def test_few_rows_are_enough_for_the_metric_that_needs_the_fewest(cloud: Cloud) -> None:
    real, fake = cloud(0, 5, 3), cloud(1, 4, 3)
    runtime = Runtime()
    precision, density = (kind(kind.family, extractor="wavelet").with_runtime(runtime) for kind in KINDS)
    together = precision.score(precision.prepare(real), fake)
    alone = PrecisionRecallMetric("precision", extractor="wavelet")
    assert together.values["precision"].value == alone.score(alone.prepare(real), fake).values["precision"].value
    with pytest.raises(ValueError, match="less than the number of rows, but got k=5, N=5"):
        density.prepare(real)
