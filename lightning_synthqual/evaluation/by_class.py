"""Scores by class: metrics of features on the rows of each class, without another extraction."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.evaluation.sets import GeneratedSet
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.base import Identity
from lightning_synthqual.images.identity import sampled
from lightning_synthqual.images.labels import Labels, as_class
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.metrics.base import PER_CLASS, Influence, Metric, Score, Scores, as_scores
from lightning_synthqual.metrics.figures import Bar, Bars, Table
from lightning_synthqual.metrics.views import SetView

TABLE = "per_class"  # name of the table and of the figure
COLUMNS = ("class", "metric", "value", "standard error", "images")
_LEAST = 10  # images of a class on either side


class ByClass:
    """Scores metrics on the images of each class; every process calls the same methods and gets the same results.

    Args:
        workspace: Processes, device and cache.
        compared: The images to compare with, if there are any.

    Raises:
        ValueError: If these have no labels.
    """

    def __init__(self, workspace: Workspace, compared: ImageSet | None) -> None:
        self._workspace = workspace
        self._compared = compared if workspace.plan.per_class else None
        if self._compared is not None:
            self._compared.label(0)
        self._read: dict[int, Labels] = {}
        self._drawn: dict[int, Labels] = {}
        self._alone: dict[str, Metric] = {}
        self._states: dict[tuple[str, int], Any] = {}
        self._left_out: dict[str, str] = {}

    def sampled(self, generated: GeneratedSet, sampler: Sampler) -> GeneratedSet:
        """Samples with the labels that they were generated with, where these are asked for."""
        if self._compared is None:
            return generated
        return replace(generated, labels=self._of_samples(self._compared, sampler, generated.extracted.count))

    def read(self, generated: GeneratedSet, image_set: ImageSet) -> GeneratedSet:
        """Images that exist already with their labels, where these are asked for."""
        return generated if self._compared is None else replace(generated, labels=self._of_set(image_set))

    def check(self, generated: ImageSet) -> None:
        """Raise if labels are asked for and generated images have none, or folders have other names than real ones.

        Raises:
            ValueError: It names the set, or the folders that only one side has.
        """
        if self._compared is None:
            return
        generated.label(0)
        ours, theirs = set(generated.class_names), set(self._compared.class_names)
        if ours and theirs and ours != theirs:
            raise ValueError(
                f"`per_class=True` needs class folders of the same names in `{generated.role}` and "
                f"`{self._compared.role}`, but only one of them has {', '.join(sorted(ours ^ theirs)[:10])}. Rename or "
                "move the folders."
            )

    def scores(self, metric: Metric, real: SetView | None, generated: GeneratedSet) -> Scores:
        """The mean over classes of each value of a metric by its reported name, and a table of the classes.

        Nothing, if scores by class are not asked for or the metric has none.

        Args:
            metric: The metric.
            real: The real images.
            generated: The generated images.
        """
        labels = generated.labels
        if self._compared is None or real is None or labels is None or not metric.by_class:
            return Scores({})
        alone = self._bound(metric)
        rows, fake = metric.rows(real), metric.rows(generated.view)
        known, values = self._of_set(self._compared), dict[str, dict[int, Score]]()
        for number in self._classes(metric, known, labels):
            state = self._state(alone, number, rows, known.of(number))
            found = as_scores(alone, alone.score(state, _rows(fake, labels.of(number))))
            for name, score in alone.reported(found).items():
                if isfinite(float(score.value)):
                    values.setdefault(name, {})[number] = score
        means = {name + PER_CLASS: _mean(each, known, labels) for name, each in values.items()}
        cells = [
            (labels.name(number), name, float(score.value), _float(score.error), len(labels.of(number)))
            for name, each in values.items()
            for number, score in each.items()
        ]
        return Scores(means, tables={TABLE: Table(COLUMNS, cells)} if cells else {})

    def protocol(self) -> dict[str, Any]:
        """For the protocol: the smallest number of images of a class, and the classes that were left out."""
        found = {"least_images": _LEAST, "left_out": dict(self._left_out)}
        return {} if self._compared is None else {"per_class": found}

    def _of_samples(self, compared: ImageSet, sampler: Sampler, count: int) -> Labels:
        """The labels of samples, which are the same at each evaluation."""
        if count not in self._drawn:
            numbers = torch.tensor(sampler.class_numbers(count, self._workspace.plan.batch_size))
            source = sampler.label_source
            if sampler.labels == "data" and isinstance(source, ImageSet):
                numbers = self._of_set(source).rows[numbers]
            self._drawn[count] = Labels(numbers, compared.class_names)
        return self._drawn[count]

    def _of_set(self, image_set: ImageSet) -> Labels:
        """The labels of a data set."""
        if id(image_set) not in self._read:
            self._read[id(image_set)] = Labels(self._labels(image_set), image_set.class_names)
        return self._read[id(image_set)]

    def _bound(self, metric: Metric) -> Metric:
        """The metric, sharing nothing with others, whose shared results are of all images."""
        if metric.name not in self._alone:
            self._alone[metric.name] = metric.with_runtime(replace(metric.runtime, shared={}))
        return self._alone[metric.name]

    def _state(self, metric: Metric, number: int, real: Tensor, rows: Tensor) -> Any:
        key, residence = (metric.name, number), self._workspace.residence
        if key not in self._states:
            self._states[key] = residence.leave(metric.prepare(_rows(real, rows)))
        return residence.enter(self._states[key])

    def _classes(self, metric: Metric, known: Labels, labels: Labels) -> list[int]:
        """The classes with enough images on both sides; those of the real images that are left out are named."""
        least = max(_LEAST, metric.min_images())
        found, short = [], []
        for number in torch.cat([known.rows, labels.rows]).unique().tolist():
            ours, theirs = len(labels.of(number)), len(known.of(number))
            if min(ours, theirs) >= least:
                found.append(number)
            else:
                short.append(f"{labels.name(number)} ({ours} generated, {theirs} real)")
        if short:
            names = ", ".join(metric.names)
            self._left_out[names] = f"fewer than {least} images: {', '.join(short)}"
            self._workspace.warn(f"Scores by class leave out classes with {self._left_out[names]}.")
        return found

    def _labels(self, image_set: ImageSet) -> Tensor:
        """The labels (N,) of a set, from the cache where every process finds them; else they are there afterwards."""
        ranks, cache, stamp, count = self._workspace.ranks, self._workspace.cache, image_set.stamp(), len(image_set)
        # The same images may have other labels, which is seen in those of a few.
        probe = [_class_of(image_set, position) for position in sampled(count)]
        digest = hashlib.sha256(json.dumps(ranks.gather_objects(probe)[0]).encode()).hexdigest()
        identity = Identity("labels", weights="none", preprocessing=digest)
        stored = None if stamp is None else cache.load(stamp, identity, rows=count)
        if stored is not None:
            return stored["labels"].clone()
        own = list(range(ranks.rank, count, ranks.world_size))
        rows = torch.tensor([_class_of(image_set, position) for position in own], dtype=torch.int64)
        labels = ranks.gather_rows(rows, own, count, torch.device("cpu"))
        if stamp is not None:
            cache.save(stamp, identity, {"labels": labels})
        return labels


def joined(found: Mapping[str, Scores], metrics: Sequence[Metric]) -> tuple[dict[str, Bars], dict[str, Table]]:
    """The figure and the table of all metrics, if classes were scored.

    Args:
        found: What metrics say, by metric.
        metrics: The metrics.
    """
    larger = {name for metric in metrics for name in metric.names if metric.described_direction(name) == "max"}
    rows: list[Any] = [row for scores in found.values() if TABLE in scores.tables for row in scores.tables[TABLE].rows]
    if not rows:
        return {}, {}
    panels: dict[str, list[Bar]] = {}
    for name, metric, value, error, _ in rows:
        panels.setdefault(metric, []).append(Bar(str(name), value, error))
    ordered = {
        name: tuple(sorted(bars, key=lambda bar: bar.value, reverse=name in larger)) for name, bars in panels.items()
    }
    return {TABLE: Bars(ordered, title="by class")}, {TABLE: Table(COLUMNS, rows)}


def _class_of(image_set: ImageSet, position: int) -> int:
    return as_class(image_set.label(position), f"`{image_set.role}` (item {position})")


def _rows(features: Tensor, positions: Tensor) -> Tensor:
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
