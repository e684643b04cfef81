"""The real images: read once, with what metrics prepare from them, and the values that they have themselves."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.evaluation.plan import Plan
from lightning_synthqual.evaluation.sets import RealSet, read_real
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.base import Identity
from lightning_synthqual.images.duplicates import duplicates
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.source import Images
from lightning_synthqual.metrics.base import Metric, Score, Scores, as_scores, naming
from lightning_synthqual.metrics.difference import paired_difference
from lightning_synthqual.metrics.shard import MEMORY
from lightning_synthqual.metrics.states import pack_state, state_key, unpack_state
from lightning_synthqual.metrics.views import ImageAccess, RealSets, SetView

_FLOAT = 4  # bytes of a feature


def open_real(plan: Plan, real: Any, held_out: Any) -> tuple[ImageSet | None, ImageSet | None]:
    """Open the reference, if a metric looks at real images, and the other real set if there is one.

    Raises:
        FileNotFoundError: If a folder is missing.
        TypeError: If a source is no set of images.
        ValueError: If the reference is missing, or a set is empty.
    """
    plan.check_held_out(held_out)
    if not plan.reads_real:
        return None, None
    if real is None and plan.needs_both:
        open_set(plan, real, "real")  # it says what is missing
    sources = {"real": real, "held_out": held_out}
    compared = open_set(plan, sources.pop(plan.reference), plan.reference)
    ((role, source),) = sources.items()
    other = None if source is None else open_set(plan, source, role)
    for image_set in (compared, other if plan.compares_both else None):
        if image_set is not None:
            image_set.inspect()
    if plan.reads_labels and compared is not None:
        compared.label(0)  # an error where there are none
    return compared, other


def open_set(plan: Plan, source: Any, role: str) -> ImageSet:
    """Open a real set: ``role`` is ``"real"`` or ``"held_out"``.

    Raises:
        FileNotFoundError: If a folder is missing.
        TypeError: If ``source`` is no set of images.
        ValueError: If it is missing or empty.
    """
    if Images.of(source).source in (None, ""):
        raise ValueError(
            f"The images to compare with, `{role}`, are missing. Pass `{role}=` a Dataset, DataLoader or image "
            "folder (only in a fit, `real=None` stands for the trainer's train data)."
        )
    return ImageSet(
        source,
        role,
        declared=plan.real_range,
        fallback=plan.image_range,
        image_size=plan.size,
        num_images=plan.num_real,
        seed=plan.seed,
        cache_key=plan.cache_key,
        cache_check=plan.cache_check,
        num_workers=plan.num_workers,
        skip_unreadable=plan.skip_unreadable,
    )


class Reference:
    """What generated images are compared with.

    Args:
        workspace: Processes, device and networks, which are loaded.
        metrics: The metrics, able to work.
        compared: Images to compare with; ``None`` if no metric looks at real images.
        other: The other real set, if there is one.

    Raises:
        ValueError: If there are too few images, or they are not what was declared.
    """

    def __init__(
        self,
        workspace: Workspace,
        metrics: Sequence[Metric],
        compared: ImageSet | None,
        other: ImageSet | None,
    ) -> None:
        started = time.perf_counter()
        self._workspace = workspace
        used = other is not None and workspace.plan.compares_both
        self.main = None if compared is None else read_real(workspace, compared, used)
        self.other = read_real(workspace, other, True) if used and other is not None else None
        self.sets = _real_sets(self.main, self.other)
        self._check(metrics)
        self.states: dict[str, Any] = {}  # not on the device
        self._reads: tuple[str, ...] = ()
        for metric in metrics:
            try:
                self._make_room(metric)
                self.states[metric.name] = workspace.residence.leave(self._prepare(metric))
            except Exception as error:
                named = naming(metric, error)
                if named is error:
                    raise
                raise named from error
        self._floors: dict[tuple[str, int], Scores] = {}
        self._halves: dict[str, list[Any]] = {}
        self.seconds = time.perf_counter() - started

    @property
    def images(self) -> dict[str, ImageAccess]:
        """The images of both real sets by role."""
        return {each.images.role: each.view.images for each in (self.main, self.other) if each is not None}

    @property
    def count(self) -> int:
        """Number of images to compare with."""
        return 0 if self.main is None else self.main.view.count

    @property
    def role(self) -> str:
        """Role of the images to compare with."""
        return "real" if self.main is None else self.main.images.role

    def state(self, metric: Metric) -> Any:
        """What the metric has prepared, on the device; what metrics of other extractors had there is gone."""
        self._make_room(metric)
        return self._workspace.residence.enter(self.states[metric.name])

    def _make_room(self, metric: Metric) -> None:
        if metric.extractors() != self._reads:
            self._workspace.residence.release()
        self._reads = metric.extractors()

    def extras(self, metric: Metric, fake: Tensor) -> dict[str, Scores]:
        """Floor and gap of a metric for generated features (M, D), by suffix, where they are defined.

        The floor is the value of the other real set against the reference. The gap is the value of generated images
        against held-out images minus that against equally many training images.
        """
        if self.other is None or self.main is None or not (metric.floor or metric.gap):
            return {}
        found = {
            "_floor": self._floor(metric, self.other.view, len(fake)),
            "_gap": self._gap(metric, self.main.view, self.other.view, fake),
        }
        return {suffix: scores for suffix, scores in found.items() if scores is not None}

    def check_generated(
        self, metrics: Sequence[Metric], count: int, what: str, features: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """Raise if generated images are too few or not comparable; warn if they are few enough to bias a metric.

        Args:
            metrics: The metrics.
            count: Number of generated images.
            what: Name of the argument that they come from, for messages.
            features: Features of generated images (n, D), n >= 1, by extractor and output.

        Raises:
            ValueError: It names the metrics or the extractor.
        """
        for metric in metrics:
            self.check_published(metric, count)
            if metric.extractor is None:
                continue
            check_enough(metric, count, what)
            if self.main is None or not metric.reads_real:
                continue
            self._check_comparable(metric.extractor, features[metric.extractor])
            columns = self.main.stored.rows(metric.extractor, metric.output).shape[1]
            if metric.more_rows_than_columns and min(count, self.count) < columns:
                fewest = f"{count} generated" if count <= self.count else f"{self.count} real"
                self._workspace.warn(
                    f"{', '.join(metric.names)}: only {fewest} images for {columns} features, so the value is biased "
                    "upwards. Compare it only at equal numbers."
                )

    def check_published(self, metric: Metric, count: int) -> None:
        """Raise if the numbers of images are not those of a published protocol whose name was asked for.

        Raises:
            ValueError: It says what the protocol demands.
        """
        if self._workspace.plan.smoke_test or metric.published is None:
            return
        complete = self.main is None or self.main.complete
        violation = metric.published.violation(count, self.count, self.role, complete)
        if violation is not None:
            raise ValueError(f"{', '.join(metric.names)} is a published protocol, which {violation}.")

    def _check_comparable(self, name: str, outputs: Mapping[str, Tensor]) -> None:
        """Raise unless generated features may be compared with those of the reference."""
        assert self.main is not None
        identity = self._workspace.extractors[name].identity
        if self.main.identities[name] != identity:
            raise ValueError(f"Features of {self.main.identities[name]} cannot be compared with those of {identity}.")
        for output, rows in outputs.items():
            if output not in self.main.stored.features[name]:
                continue  # no metric reads it
            columns = self.main.stored.rows(name, output).shape[1]
            if rows.shape[1] != columns:
                raise ValueError(
                    f"Extractor {name!r} gives {rows.shape[1]} features for generated and {columns} for real images. "
                    "Resize the real ones by `image_size=`, or pool inside the extractor."
                )

    def _floor(self, metric: Metric, other: SetView, generated: int) -> Scores | None:
        if metric.floor is None:
            return None
        count = generated if metric.floor == "same number" else other.count
        least = max(count, metric.min_images())
        if other.count < least:
            role = "real" if self.other is None else self.other.images.role
            self._skip(metric, "_floor", f"`{role}` has {other.count} images, but {least} are needed to compare")
            return None
        key = metric.name, count
        if key not in self._floors:
            result = metric.score(self.state(metric), self._choose(metric.rows(other), count))
            self._floors[key] = self._workspace.residence.leave(as_scores(metric, result))
        return self._workspace.residence.enter(self._floors[key])

    def _gap(self, metric: Metric, real: SetView, other: SetView, fake: Tensor) -> Scores | None:
        if not metric.gap:
            return None
        count, residence = min(real.count, other.count), self._workspace.residence
        if count < metric.min_images():
            self._skip(metric, "_gap", f"the smaller real set has {count} images, but {metric.min_images()} are needed")
            return None
        if metric.name not in self._halves:
            parts = [self._choose(metric.rows(each), count) for each in (real, other)]
            self._halves[metric.name] = residence.leave([metric.prepare(part) for part in parts])
        to_train, to_held_out = (
            as_scores(metric, metric.score(residence.enter(state), fake)).values for state in self._halves[metric.name]
        )
        if self.role == "held_out":
            to_train, to_held_out = to_held_out, to_train
        return Scores({name: _gap(each, to_train[name]) for name, each in to_held_out.items()})

    def _skip(self, metric: Metric, suffix: str, why: str) -> None:
        names = ", ".join(name + suffix for name in metric.names)
        self._workspace.warn(f"{names} is not reported: {why}.")

    def _choose(self, rows: Tensor, count: int) -> Tensor:
        """``count`` of the rows, always the same ones."""
        if count == len(rows):
            return rows
        chosen = np.sort(np.random.default_rng(self._workspace.plan.seed).permutation(len(rows))[:count])
        return rows[torch.from_numpy(chosen).to(rows.device)]

    def _check(self, metrics: Sequence[Metric]) -> None:
        """Raise if a metric has too few images, or real sets overlap."""
        for metric in metrics:
            for real, applies in ((self.main, metric.reads_real), (self.other, metric.both_sets)):
                if applies and real is not None and metric.extractor is not None:
                    check_enough(metric, real.view.count, f"`{real.images.role}`")
                    metric.rows(real.stored)
        if self.main is not None and self.other is not None:
            train, held_out = _by_role(self.main, self.other)
            if train.digests is not None and held_out.digests is not None:
                self._workspace.warn(duplicates(train.digests, held_out.digests, held_out.images.name))

    def _prepare(self, metric: Metric) -> Any:
        """The state of a metric, from the cache if it is there; else it is there afterwards, if it can be stored."""
        if self.main is None or metric.extractor is None or not metric.reads_real:
            return metric.prepare_sets(RealSets() if not metric.reads_real else self.sets)
        features = self.main.digests_of_features[metric.extractor]
        key = None if features is None else state_key(metric, features)
        if key is None:
            return metric.prepare_sets(self.sets)
        identity, cache = Identity("state", weights="none", preprocessing=key), self._workspace.cache
        fingerprint = str(self.main.protocol["fingerprint"])
        rows = [metric.rows(self.main.view)]
        tensors = cache.load(fingerprint, identity)
        if tensors is not None:
            with suppress(ValueError):  # of a version with other classes
                return unpack_state(tensors, rows, self._workspace.device)
        state = metric.prepare_sets(self.sets)
        tensors = pack_state(state, rows)
        if tensors is None:
            return state
        # As a later start finds it: tensors that lie otherwise in memory give other last digits.
        return unpack_state(cache.save(fingerprint, identity, tensors), rows, self._workspace.device)


def check_enough(metric: Metric, count: int, what: str) -> None:
    """Raise if there are fewer images than a metric can do with.

    Args:
        metric: The metric.
        count: Number of images.
        what: Name of the argument that they come from, for the message.

    Raises:
        ValueError: It names the metric.
    """
    if count < metric.min_images():
        names = ", ".join(metric.names)
        raise ValueError(f"{names} needs at least {metric.min_images()} images, but {what} has {count}. Give more.")


def _gap(to_held_out: Score, to_train: Score) -> Score:
    """The difference of two scores of the same generated images against two sets of real ones."""
    if to_held_out.influence is None or to_train.influence is None:
        return Score(to_held_out.value - to_train.value)
    return paired_difference(to_held_out, to_train, same_real=False)


def _by_role(main: RealSet, other: RealSet) -> tuple[RealSet, RealSet]:
    """Training and held-out images."""
    return (main, other) if main.images.role == "real" else (other, main)


def _real_sets(main: RealSet | None, other: RealSet | None) -> RealSets:
    if main is None:
        return RealSets()
    if other is None:
        return RealSets(main.view)
    train, held_out = _by_role(main, other)
    return RealSets(main.view, train.view, held_out.view)


def peak_memory(
    workspace: Workspace, reference: Reference, features: Mapping[str, Mapping[str, Tensor]], num_samples: int
) -> int:
    """Bytes that an evaluation holds at its peak, but for what networks need while they work; from shapes.

    Networks, the features of all generated images and the tiles of a computation are counted, and on an accelerator
    the real features of the extractor that has most of them; on a CPU these are mapped from disk.

    Args:
        workspace: Networks and device.
        reference: The real sets.
        features: Features of a few generated images by extractor and output.
        num_samples: Number of generated images.
    """
    columns = {(name, output): rows.shape[1] for name, outputs in features.items() for output, rows in outputs.items()}
    read = {
        (name, metric.output or workspace.extractors[name].embedding)
        for metric in workspace.plan.metrics
        for name in metric.extractors()
    }
    generated = _FLOAT * num_samples * sum(columns.get(key, 0) for key in read)
    networks = sum(each.nbytes for each in (*workspace.extractors.values(), *workspace.pairs.values()))
    sets = [each.stored.features for each in (reference.main, reference.other) if each is not None]
    stored = [
        sum(rows.nbytes for outputs in sets for rows in outputs.get(name, {}).values()) for name in workspace.extractors
    ]
    real = 0 if workspace.device.type == "cpu" else max(stored, default=0)
    return networks + generated + real + MEMORY
