"""Scores of faulty sets, and their changes, paired by image."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_synthqual.audit.faulty import FaultySet, Features
from lightning_synthqual.audit.reading import Column
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.access import FewImages
from lightning_synthqual.metrics.base import Influence, Metric, Score, as_scores
from lightning_synthqual.metrics.catalogue import direction_of
from lightning_synthqual.metrics.difference import paired_difference
from lightning_synthqual.metrics.figures import Role
from lightning_synthqual.metrics.views import Generated, RealSets, Runtime, SetView

CERTAIN = 3.0  # standard errors of a change that is told


@dataclass(frozen=True)
class Change:
    """How a score differs from that of untouched images.

    Args:
        value: The score of the faulty set.
        change: The score minus that of untouched images.
        std: Standard error of the change; ``None`` if the score has none.
    """

    value: float
    change: float
    std: float | None

    @property
    def defined(self) -> bool:
        """Whether the score is finite on both sets."""
        return isfinite(self.value) and isfinite(self.change)

    def told(self, direction: Literal["min", "max"]) -> Literal["worse", "better"] | None:
        """Whether the change is larger than three standard errors, and in which direction.

        ``None`` also where the score is undefined on one of the sets, or its error is.
        """
        if not self.defined or self.std is None or not isfinite(self.std) or abs(self.change) <= CERTAIN * self.std:
            return None
        return "worse" if (self.change > 0) == (direction == "min") else "better"


class Scoring:
    """The metrics of an audit against one reference, on one process.

    Args:
        workspace: Plan, networks and device.
        columns: The metrics, by the names of the plan.
        reference: Features of the reference.
    """

    def __init__(self, workspace: Workspace, columns: Mapping[str, Column], reference: Features) -> None:
        self._workspace = workspace
        self._columns = columns
        shared: dict[Any, Any] = {}
        runtime = Runtime(device=workspace.device, shared=shared, warn=workspace.warn)
        self._untouched: dict[bytes, dict[Column, Score]] = {}
        self._metrics = [metric.with_runtime(runtime) for metric in workspace.plan.metrics]
        view = self._view("real", reference)
        sets = RealSets(reference=view, train=view)
        self._states = [metric.prepare_sets(sets) for metric in self._metrics]
        self.directions: dict[Column, Literal["min", "max"]] = {}
        for metric in self._metrics:
            for name in metric.names:
                self.directions[columns[name]] = _direction(metric, name)

    def scores(self, features: Features) -> dict[Column, Score]:
        """The score of each metric."""
        found: dict[Column, Score] = {}
        generated = Generated(**vars(self._view("generated", features)))
        for metric, state in zip(self._metrics, self._states, strict=True):
            scores = metric.reported(as_scores(metric, metric.score_set(state, generated)))
            found |= {self._columns[name]: score for name, score in scores.items()}
        return found

    def untouched(self, control: FaultySet) -> dict[Column, Score]:
        """The scores of untouched images, which most faults are compared with; each set of them is scored once."""
        key = control.ids.numpy().tobytes()
        if key not in self._untouched:
            self._untouched[key] = self.scores(control.features)
        return self._untouched[key]

    def _view(self, role: Role, features: Features) -> SetView:
        device, extractors = self._workspace.device, self._workspace.extractors
        count = len(next(rows for outputs in features.values() for rows in outputs.values()))
        moved = {
            name: {output: rows.to(device) for output, rows in outputs.items()} for name, outputs in features.items()
        }
        embeddings = {name: extractor.embedding for name, extractor in extractors.items()}
        return SetView(role, moved, embeddings, FewImages(torch.empty(0, 3, 1, 1)), None, count)


def changes(
    faulty: Mapping[Column, Score], untouched: Mapping[Column, Score], one: FaultySet, other: FaultySet, tested: int
) -> dict[Column, Change]:
    """How each score of a faulty set differs from that of untouched images.

    Args:
        faulty: Scores of the faulty set.
        untouched: Scores of the untouched set.
        one: The faulty set.
        other: The untouched set.
        tested: Number of tested images.
    """
    return {
        column: _change(score, untouched[column], one.ids, other.ids, tested)
        for column, score in faulty.items()
        if column in untouched
    }


def _change(a: Score, b: Score, ids: Tensor, other_ids: Tensor, tested: int) -> Change:
    value, change = float(a.value), float(a.value) - float(b.value)
    if a.influence is None or b.influence is None:
        errors = None if a.error is None or b.error is None else sqrt(float(a.error) ** 2 + float(b.error) ** 2)
        return Change(value, change, errors)
    if torch.equal(ids, other_ids):
        error = paired_difference(a, b).error
        return Change(value, change, None if error is None else float(error))
    return Change(value, change, joined_error(a.influence, b.influence, ids, other_ids, tested))


def joined_error(a: Influence, b: Influence, ids: Tensor, other_ids: Tensor, tested: int) -> float:
    """Standard error of a difference of scores whose rows are in part of the same images.

    To first order the difference is a sum over images, each of which adds what all its rows add: those of both
    generated sets, and where a generated row is a copy of a real image, that real row.

    Args:
        a: Influences on a score of M rows against R real ones.
        b: Influences on a score of other rows against the same real ones.
        ids: Of which image each row of ``a`` is, integers (M,): below ``tested`` a tested image, else ``tested`` plus
            the number of a real one.
        other_ids: The same of ``b``.
        tested: Number of tested images.
    """
    real = (a.real.double() - b.real.double()).cpu()
    sums = torch.zeros(tested + len(real), dtype=torch.float64)
    for sign, influence, rows in ((1.0, a.fake, ids), (-1.0, b.fake, other_ids)):
        sums.index_add_(0, rows, sign * influence.double().cpu() / max(len(rows) - 1, 1))
    if len(real):
        sums[tested:] += real / max(len(real) - 1, 1)
    return float(sums.square().sum().sqrt())


def _direction(metric: Metric, name: str) -> Literal["min", "max"]:
    found = direction_of(metric, name)
    if found is None:
        raise ValueError(f"`metrics` names {name!r}, of which neither low nor high values are better. Leave it out.")
    return found
