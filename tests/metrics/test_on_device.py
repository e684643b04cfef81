"""Metrics on an accelerator: the same values, and few waits of the host."""

from collections.abc import Callable

import pytest
import torch
from accelerator import accelerator
from torch import Tensor

from lightning_synthqual.metrics import neighbors
from lightning_synthqual.metrics.base import Metric, as_scores
from lightning_synthqual.metrics.catalogue import CATALOGUE
from lightning_synthqual.metrics.feature_space import FeatureSpace
from lightning_synthqual.metrics.neighbors import Limit, near, search
from lightning_synthqual.metrics.views import Generated, RealSets, Runtime, SetView

Cloud = Callable[..., Tensor]

# All that have numbers and read features.
METRICS = {
    entry.metric.__name__: entry.metric
    for entry in CATALOGUE.values()
    if entry.extractor and not entry.metric.reads_pixels and entry.metric is not FeatureSpace
    if not entry.metric.reads_texts
}


def score(kind: type[Metric], sets: dict[str, Tensor], device: str) -> dict[str, float]:
    """Everything that a metric computes, the reference included."""

    def view(kind: type[SetView], role: str) -> SetView:
        rows = sets[role].to(device)
        return kind(role, {"wavelet": {"x": rows, "logits": rows}}, {"wavelet": "x"}, None, None, len(rows))

    metric = kind("x", extractor="wavelet").with_runtime(Runtime(device=torch.device(device)))
    train, held_out = view(SetView, "real"), view(SetView, "held_out")
    found = as_scores(
        metric, metric.score_set(metric.prepare_sets(RealSets(train, train, held_out)), view(Generated, "generated"))
    )
    values = {name: float(each.value) for name, each in found.values.items()}
    return values | {f"{name}_std": float(each.error) for name, each in found.values.items() if each.error is not None}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=name, marks=pytest.mark.slow if name == "Kid50kFull" else ())
        for name, kind in METRICS.items()
    ],
)
def test_values_are_those_of_the_cpu(cloud: Cloud, kind: type[Metric]) -> None:
    sets = {"real": cloud(0, 101, 70), "held_out": cloud(1, 67, 70), "generated": cloud(2, 83, 70, centre=0.6)}
    sets["generated"][:9] = sets["real"][30:39]
    sets = {role: rows.float() for role, rows in sets.items()}
    expected = score(kind, sets, "cpu")
    with accelerator():
        found = score(kind, sets, "cuda")
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("work", "times"),
    [
        (lambda x, y: search(x, y, 3), 2 * 5 + 1),
        (lambda x, y: search(x, x, 3, own=True), 2 * 5 + 1),
        (
            lambda x, y: list(
                near(x, y, [Limit(_limit(y)[None]), Limit(_limit(x)[:, None]), Limit(_limit(y)[None], True)])
            ),
            2 * 20 + 1,
        ),
    ],
    ids=["search", "own neighbours", "limits"],
)
def test_the_host_waits_at_most_twice_a_tile(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, work: Callable[[Tensor, Tensor], object], times: int
) -> None:
    """Of 5 x 4 tiles, or of 5 rows of such; once more for the largest row."""
    monkeypatch.setattr(neighbors, "tile_size", lambda *_: 20)
    with torch.no_grad(), accelerator() as log:
        x, y = cloud(0, 100, 8).cuda(), cloud(1, 80, 8).cuda()
        log.clear()
        work(x, y)
    assert log.synchronizations <= times
    assert not log.to_device


def _limit(rows: Tensor) -> Tensor:
    return torch.full((len(rows),), 9.0, dtype=torch.float64, device=rows.device)
