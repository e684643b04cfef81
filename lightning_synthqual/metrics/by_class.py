"""Scores by class: a metric of features on the rows of each class, without another extraction."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score, Scores, as_scores
from lightning_synthqual.metrics.figures import Bar, Bars, Table
from lightning_synthqual.metrics.views import Generated, Labels, RealSets, Runtime, SetView

NAME = "per_class"  # of the table and the figure, and the end of the names of means
COLUMNS = ("class", "metric", "value", "standard error", "images")
_LEAST = 10  # images of a class on either side
_Self = TypeVar("_Self", bound="PerClass")


class Classes(NamedTuple):
    """The classes of real images, and what a metric has prepared of each that has enough of them."""

    labels: Labels
    states: dict[int, Any]


class PerClass(Metric):
    """The mean over classes of another metric, and a table and a figure of the classes.

    A class takes part if both sides have at least 10 images of it, and as many as the metric needs; others are left out
    by name. It may be any metric of real and generated features alone (`Metric.by_class`), a stranger's too.

    Args:
        metric: The metric.
    """

    reads_labels = True

    def __init__(self, metric: Metric) -> None:
        reports = metric.reports
        ours = None if reports is None else {f"{name}_{NAME}": value for name, value in reports.items()}
        super().__init__(f"{metric.name}_{NAME}", extractor=metric.extractor, reports=ours)
        self.direction = metric.direction
        self._metric = metric
        self._left_out: list[str] = []

    def min_images(self) -> int:
        """As the metric."""
        return self._metric.min_images()

    def outputs_read(self, embedding: str) -> frozenset[str] | None:
        """As the metric."""
        return self._metric.outputs_read(embedding)

    def rows(self, view: SetView) -> Tensor:
        """As the metric."""
        return self._metric.rows(view)

    def describe(self, generated: SetView) -> dict[str, Any]:
        """As the metric, with the smallest number of images of a class, and the classes that were left out."""
        return {**self._metric.describe(generated), "least_images": self._least, "left_out": list(self._left_out)}

    def with_runtime(self: _Self, runtime: Runtime) -> _Self:
        """A copy whose metric shares nothing with others, whose shared results are of all images."""
        bound = super().with_runtime(runtime)
        bound._metric = self._metric.with_runtime(replace(runtime, shared={}))
        return bound

    def prepare_sets(self, real: RealSets) -> Classes:
        """What the metric prepares of each class."""
        assert real.reference is not None
        labels, rows = _labels(real.reference), self.rows(real.reference)
        places = {number: labels.of(number) for number in labels.rows.unique().tolist()}
        states = {
            number: self._metric.prepare(_of(rows, each)) for number, each in places.items() if len(each) >= self._least
        }
        return Classes(labels, states)

    def score_set(self, state: Classes, generated: Generated) -> Scores:
        """The means over the classes."""
        labels, rows = _labels(generated), self.rows(generated)
        values: dict[str, dict[int, Score]] = {}
        for number in self._classes(state, labels):
            found = as_scores(self._metric, self._metric.score(state.states[number], _of(rows, labels.of(number))))
            for value, score in found.values.items():
                if isfinite(float(score.value)):
                    values.setdefault(value, {})[number] = score
        means = {value: _mean(each, state.labels, labels) for value, each in values.items()}
        cells = [
            (state.labels.name(number), name, float(score.value), _float(score.error), len(labels.of(number)))
            for value, each in values.items()
            for number, score in each.items()
            for name in self._metric.reported(Scores({value: score}))
        ]
        if not cells:
            return Scores(means)
        return Scores(means, {NAME: self._bars(cells)}, {NAME: Table(COLUMNS, cells)})

    @property
    def _least(self) -> int:
        return max(_LEAST, self._metric.min_images())

    def _classes(self, state: Classes, labels: Labels) -> list[int]:
        """The classes with enough images on both sides; the others are named."""
        known, found = state.labels, list[int]()
        self._left_out = []
        for number in torch.cat([known.rows, labels.rows]).unique().tolist():
            if number in state.states and len(labels.of(number)) >= self._least:
                found.append(number)
            else:
                counts = f"{len(labels.of(number))} generated, {len(known.of(number))} real"
                self._left_out.append(f"{known.name(number)} ({counts})")
        if self._left_out:
            self.runtime.warn(
                f"{self.name} leaves out classes with fewer than {self._least} images: {', '.join(self._left_out)}."
            )
        return found

    def _bars(self, cells: Sequence[tuple[Any, ...]]) -> Bars:
        """A panel for each value, the best class first."""
        panels: dict[str, list[Bar]] = {}
        for name, metric, value, error, _ in cells:
            panels.setdefault(metric, []).append(Bar(str(name), value, error))
        larger = {name for name in panels if self._metric.described_direction(name) == "max"}
        ordered = {
            name: tuple(sorted(bars, key=lambda bar: bar.value, reverse=name in larger))
            for name, bars in panels.items()
        }
        return Bars(ordered, title="by class")


def _labels(view: SetView) -> Labels:
    if view.labels is None:
        raise ValueError(f"The {view.role} images have no labels, by which scores by class are taken.")
    return view.labels


def _of(features: Tensor, positions: Tensor) -> Tensor:
    return features[positions.to(features.device)]


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _mean(scores: Mapping[int, Score], real: Labels, fake: Labels) -> Score:
    """The mean over classes: of independent values, since no image is in two classes."""
    count = len(scores)
    value = sum(float(score.value) for score in scores.values()) / count
    errors = [_float(score.error) for score in scores.values()]
    known = [error for error in errors if error is not None]
    std = sum(error**2 for error in known) ** 0.5 / count if len(known) == count else None
    parts = {number: score.influence for number, score in scores.items() if score.influence is not None}
    if len(parts) < count:
        return Score(value, std=std)
    influence = Influence(
        torch.tensor(value, dtype=torch.float64),
        _spread({number: each.fake for number, each in parts.items()}, fake),
        _spread({number: each.real for number, each in parts.items()}, real),
    )
    return Score(value, std=std, influence=influence)


def _spread(parts: Mapping[int, Tensor], labels: Labels) -> Tensor:
    """Influences (N,) of all images on the mean over classes, of those (n,) of each class on its own value."""
    total, like = len(labels.rows), next(iter(parts.values()))
    if not all(len(part) for part in parts.values()):
        return like.new_zeros(0)
    rows = like.new_zeros(total)
    for number, part in parts.items():
        scale = (total - 1) / ((len(part) - 1) * len(parts))
        rows[labels.of(number).to(rows.device)] = part.to(rows.device) * scale
    return rows
