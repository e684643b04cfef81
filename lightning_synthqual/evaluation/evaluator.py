"""One evaluation, from images to a report, with or without a Trainer: sample, score, report."""

import logging
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from math import isclose, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synthqual.evaluation.reference import Reference, check_enough, peak_memory
from lightning_synthqual.evaluation.report import Report, describe, drawings
from lightning_synthqual.evaluation.sets import SHOWN, GeneratedSet, as_generated, described, read_generated, sample
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.extraction import Extracted
from lightning_synthqual.images.access import FewImages
from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.ranges import PixelRange, generated_range
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.images.state import undisturbed
from lightning_synthqual.images.store import ImageStore
from lightning_synthqual.metrics.base import SUFFIXES, Influence, Metric, Score, Scores, as_scores, naming
from lightning_synthqual.metrics.figures import Bars, Table
from lightning_synthqual.metrics.influences import compact
from lightning_synthqual.metrics.shard import smaller_tiles
from lightning_synthqual.metrics.worst import worst_images
from lightning_synthqual.reporting.differences import with_change
from lightning_synthqual.reporting.numbers import readable

_log = logging.getLogger(__name__)
_TRIED = 2  # images of a dry run
_SLOW = 5.0  # seconds for two images after which a dry run samples no more of them
_HALVINGS = 6  # of the memory of tiles, before a metric fails for want of it
Failures = dict[str, Exception]


class Evaluator:
    """Measures generated images against a reference, on all processes at the same time.

    It is ready when it exists: networks are loaded, the generator has been tried, the real images have been read, in
    this order, so that cheap faults show first. Every process calls the same methods in the same order and gets the
    same results.

    Args:
        workspace: Plan, processes and device.
        compared: Images to compare with; ``None`` if no metric looks at real images.
        other: The other real set, for floors and gaps.
        sampler: Generator to try, if there is one.
        num_samples: Number of its images that will be evaluated.

    Attributes:
        failures: Errors of the metrics that failed in the last evaluation, by name; the others were scored.

    Raises:
        FileNotFoundError: If weights are missing.
        RuntimeError: If the sampler fails.
        TypeError: If it does not return images.
        ValueError: If images are not what was declared, or too few.
    """

    def __init__(
        self,
        workspace: Workspace,
        compared: ImageSet | None,
        other: ImageSet | None = None,
        *,
        sampler: Sampler | None = None,
        num_samples: int | None = None,
    ) -> None:
        self.workspace = workspace
        self.ranks = workspace.ranks
        self.failures: Failures = {}
        self._halvings = 0  # of the memory of tiles
        self._real = compared, other
        self._repeatable: bool | None = None
        with _leaving_no_trace(*self._real), workspace.on_device():
            with self.ranks.synchronized("loading the networks"):
                workspace.load_networks()
            self.metrics = workspace.metrics()
            tried = None
            if sampler is not None:
                with self.ranks.synchronized("a first try of the sampler"):
                    size = None if compared is None else compared.first_size()
                    tried = self._try_out(sampler, num_samples or _TRIED, size)
            with self.ranks.synchronized("preparing the reference"):
                self.reference = Reference(workspace, self.metrics, compared, other)
            if tried is not None:
                count = num_samples or _TRIED
                with self.ranks.synchronized("a first try of the sampler"):
                    self.reference.check_generated(self.metrics, count, "`num_samples`", tried)
                if self.ranks.rank == 0:
                    needed = readable(peak_memory(workspace, self.reference, tried, count))
                    _log.info(
                        "An evaluation needs about %s on %s, besides what networks work with.", needed, workspace.device
                    )

    def evaluate(
        self,
        sampler: Sampler,
        num_samples: int,
        *,
        step: int | None = None,
        epoch: int | None = None,
        before: Report | None = None,
    ) -> Report:
        """Sample once, extract once per extractor, score every metric.

        Args:
            sampler: The generator.
            num_samples: Number of images.
            step: Step of the loggers.
            epoch: Epoch.
            before: The evaluation before this one, since which changes are reported.

        Returns:
            The report, the same on every process.
        """
        started, plan = time.perf_counter(), self.workspace.plan
        if not plan.extractor_names and all(metric.generated_images is None for metric in self.metrics):
            num_samples = min(num_samples, SHOWN)  # nothing but the grid is made of them
        stage = self.ranks.synchronized("the evaluation")
        with ImageStore() as store, _leaving_no_trace(*self._real), stage, self.workspace.on_device():
            with self._sampling(sampler):
                generated = sample(self.workspace, sampler, num_samples, self.metrics, store)
                sampled = time.perf_counter()
                # These sample the generator themselves, which is still in eval mode.
                scores, failures = self._score([each for each in self.metrics if each.needs_generator], generated)
                if scores or failures:
                    generated.extracted.seconds["paths"] = time.perf_counter() - sampled
            seen = generated.extracted.seen
            self.workspace.warn(generated_range(plan.image_range).caveat(seen, "the generator"))
            report = self._report(generated, scores, failures, started)
        sampling = {**generated.protocol, "repeatable": self._repeatable}
        report = replace(report, protocol={**report.protocol, "sampling": sampling}, step=step, epoch=epoch)
        return with_change(report, before)

    def evaluate_images(self, image_set: ImageSet, inputs: Inputs | None = None) -> Report:
        """Score images that exist already.

        Args:
            image_set: The images.
            inputs: What they were made of, in their order.

        Raises:
            ValueError: If there are too few images, or they are not what was declared.
        """
        started = time.perf_counter()
        stage = self.ranks.synchronized("the evaluation")
        with _leaving_no_trace(*self._real, image_set), stage, self.workspace.on_device():
            generated = read_generated(self.workspace, image_set, inputs)
            extracted = generated.extracted
            self.reference.check_generated(self.metrics, extracted.count, f"`{image_set.role}`", extracted.features)
            self._compare_sizes(extracted.size, self._real_size)
            for metric in self.metrics:
                for warning in metric.try_out(generated.view, _pair(self._real_size)):
                    self.workspace.warn(warning)
            report = self._report(generated, {}, {}, started)
        about = {**report.protocol["generated"], **described(image_set)}
        about |= {} if inputs is None else {"inputs": inputs.protocol}
        return replace(report, protocol={**report.protocol, "generated": about})

    def _report(self, generated: GeneratedSet, scores: dict[str, Scores], failures: Failures, started: float) -> Report:
        scoring = time.perf_counter()
        for metric in self.metrics:
            self.reference.check_published(metric, generated.extracted.count)
        rest, failed = self._score([each for each in self.metrics if not each.needs_generator], generated)
        scores, failures = {**scores, **rest}, {**failures, **failed}
        if failures and not scores:
            raise next(iter(failures.values()))
        self.failures = failures
        figures = _joined(part.figures for part in scores.values())
        tables = _joined(part.tables for part in scores.values())
        influences = self._influences(scores)
        figures |= worst_images(self.workspace.plan.worst, influences, self.metrics, self.workspace.warn)
        protocol = describe(self.workspace, self.metrics, self.reference, generated)
        if failures:
            protocol["failed"] = {name: f"{type(error).__name__}: {error}" for name, error in failures.items()}
        pictures, drawn_tables = drawings(self.reference, generated, figures, tables)
        finished = time.perf_counter()
        seconds = {**generated.extracted.seconds, "scoring": finished - scoring, "total": finished - started}
        return Report(
            self._scalars(scores),
            protocol,
            timings=seconds,
            pictures=pictures,
            tables=drawn_tables,
            influences=influences,
        )

    def _score(self, metrics: Sequence[Metric], generated: GeneratedSet) -> tuple[dict[str, Scores], Failures]:
        """What each metric says, and which of them failed, by the metric's name; they try again with less memory."""
        scores, failures, hungry = self._score_once(metrics, generated)
        while hungry and self._halvings < _HALVINGS:
            self._halvings += 1
            _log.warning("No memory is left for %s; tiles of half the size are tried.", ", ".join(hungry))
            torch.cuda.empty_cache()
            again = [metric for metric in metrics if metric.name in hungry]
            more, failed, hungry = self._score_once(again, generated)
            scores |= more
            failures = {name: each for name, each in failures.items() if name not in more} | failed
        unmeasured = [metric for metric in metrics if metric.name in failures]
        for metric in unmeasured:
            self.workspace.warn(f"{', '.join(metric.names)} failed and is not reported: {failures[metric.name]}")
        return scores, {metric.name: naming(metric, failures[metric.name]) for metric in unmeasured}

    def _score_once(
        self, metrics: Sequence[Metric], generated: GeneratedSet
    ) -> tuple[dict[str, Scores], Failures, list[str]]:
        """What each metric says, which failed, and which of these for want of memory on some process."""
        scores: dict[str, Scores] = {}
        failures: Failures = {}
        with smaller_tiles(self._halvings), self.workspace.progress.stage("scoring", len(metrics)) as advance:
            for metric in metrics:
                try:
                    with self.ranks.attempt(metric.name):
                        found = self._scores_of(metric, generated)
                        _check_names(metric, found, scores)
                    scores[metric.name] = found
                except Exception as error:
                    if isinstance(error, torch.OutOfMemoryError):
                        traceback.clear_frames(error.__traceback__)  # which hold tensors
                    failures[metric.name] = error
                advance(1)
        everywhere = self.ranks.failed_attempts() if metrics else {}
        failures = {**everywhere, **failures}
        scores = {name: each for name, each in scores.items() if name not in failures}
        # What processes decide together must not depend on their own errors, which may differ.
        decisive = everywhere if self.ranks.world_size > 1 else failures
        hungry = [name for name, error in decisive.items() if isinstance(error, torch.OutOfMemoryError)]
        return scores, failures, hungry

    def _scores_of(self, metric: Metric, generated: GeneratedSet) -> Scores:
        """A metric's values under the names by which they are reported, with errors, floors and gaps."""
        state = self.reference.state(metric)
        found = as_scores(metric, metric.score_set(state, generated.view))
        values: dict[str, Score] = {}
        extras = {"": found}
        if metric.floor or metric.gap:
            extras |= self.reference.extras(metric, metric.rows(generated.view))
        for suffix, scores in extras.items():
            for name, score in metric.reported(scores).items():
                values[name + suffix] = Score(score.value) if suffix == "_floor" else score
                if score.error is not None and suffix != "_floor":
                    values[f"{name}{suffix}_std"] = Score(score.error)
        return Scores(values, found.figures, found.tables)

    def _scalars(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The values of all metrics in the order in which they were asked for, the same on every process."""
        values = {name: float(score.value) for part in scores.values() for name, score in part.values.items()}
        undefined = [name for name, value in values.items() if not isfinite(value)]
        if undefined:
            verbs = "is undefined and was" if len(undefined) == 1 else "are undefined and were"
            self.workspace.warn(f"{', '.join(undefined)} {verbs} skipped.")
        ordered = [name + suffix for name in self.workspace.plan.names for suffix in ("", *SUFFIXES)]
        ordered += [name for name in values if name not in set(ordered)]
        own = {name: values[name] for name in ordered if name in values and name not in undefined}
        # Rank 0's digits for all: the last of them may differ between kinds of hardware, and decisions depend on it.
        every: list[dict[str, float]] = self.ranks.gather_objects(own)
        for name, value in every[0].items():
            if not all(isclose(value, each.get(name, float("nan")), rel_tol=1e-4, abs_tol=1e-9) for each in every):
                raise ValueError(
                    f"Metric {name!r} has other values on other processes: {[each.get(name) for each in every]}. All "
                    "processes get the same features: seed what it draws, and do not use the rank in it."
                )
        return every[0]

    def _influences(self, scores: Mapping[str, Scores]) -> dict[str, Influence]:
        """The influences of the rows by the name of the value, rank 0's on every process."""
        known = {
            name: compact(score.influence)
            for part in scores.values()
            for name, score in part.values.items()
            if score.influence is not None and isfinite(float(score.value))
        }
        self.ranks.share_rank_zeros([rows for each in known.values() for rows in (each.fake, each.real)])
        return known

    def _try_out(
        self, sampler: Sampler, num_samples: int, real_size: Sequence[int] | None
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Sample two images and compare them with what was declared; returns their features."""
        workspace, plan = self.workspace, self.workspace.plan
        if isinstance(sampler.label_source, ImageSet) and self.ranks.world_size > 1:
            sampler.label_source.compare(self.ranks.gather_objects, self.ranks.rank)
            sampler.label_source.check_whole()
        if sampler.inputs is not None:
            sampler.inputs.compare(self.ranks.gather_objects)
        for metric in self.metrics:
            check_enough(metric, num_samples, "`num_samples`")
            if metric.published is not None and not plan.smoke_test:
                metric.published.check_generated(metric.names, num_samples)
        with self._sampling(sampler):
            started = time.perf_counter()
            images, seen = sampler.draw(0, range(_TRIED))
            workspace.warn(generated_range(plan.image_range).caveat(seen, "the generator"))
            size = list(images.shape[2:])
            self._compare_sizes(size, real_size)
            features = {name: each(images.to(workspace.device)) for name, each in workspace.extractors.items()}
            extracted = Extracted(_TRIED, features, None, [size], PixelRange(), None, [], {})
            view = as_generated(workspace, extracted, FewImages(images), sampler)
            for metric in self.metrics:
                for warning in metric.try_out(view, _pair(real_size)):
                    workspace.warn(warning)
            self._tell_duration(sampler, num_samples, time.perf_counter() - started)
            self._repeatable = _equal(images, sampler.draw(0, range(_TRIED))[0])
        return features

    def _tell_duration(self, sampler: Sampler, num_samples: int, first: float) -> None:
        """Log what an evaluation will take, from one block of images; from the first two where those are slow."""
        workspace, plan = self.workspace, self.workspace.plan
        seconds, count = first, _TRIED
        if first < _SLOW and num_samples > plan.batch_size:
            count, started = plan.batch_size, time.perf_counter()
            images, _ = sampler.draw(0, range(count))
            for extractor in workspace.extractors.values():
                extractor(images.to(workspace.device))
            seconds = time.perf_counter() - started
        total = seconds / count * num_samples / self.ranks.replicas
        if self.ranks.rank == 0:
            _log.info("Sampling and extracting %d images takes about %.3g s an evaluation.", num_samples, total)

    @contextmanager
    def _sampling(self, sampler: Sampler) -> Iterator[None]:
        """The generator in eval mode, with the buffers of rank 0; everything is restored afterwards."""
        modules = [module for module in (sampler.owner, sampler.module) if isinstance(module, nn.Module)]
        with sampler.undisturbed(), self.ranks.buffers_of_rank_zero(modules):
            yield

    @property
    def _real_size(self) -> list[int] | None:
        size: list[int] | None = None if self.reference.main is None else self.reference.main.protocol["size"]
        return size

    def _compare_sizes(self, generated: Sequence[int] | None, real: Sequence[int] | None) -> None:
        """Warn where real and generated images are of different (height, width)."""
        if generated is None or real is None or list(real) == list(generated):
            return
        self.workspace.warn(
            f"Real images are {real[0]}x{real[1]} and generated {generated[0]}x{generated[1]} (height x width); the "
            f"difference in resolution is part of every score. Pass `image_size={tuple(generated)}` to resize real "
            "ones."
        )


def _joined(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures or tables by name; bars and tables that several metrics give under one name become one."""
    found: dict[str, Any] = {}
    for name, each in (item for part in parts for item in part.items()):
        known: Any = found.get(name)
        joins = isinstance(each, Bars | Table) and type(known) is type(each)
        found[name] = each if not joins else known.followed_by(each)
    return found


def _equal(images: Tensor, others: Tensor) -> bool:
    """Whether images are the same but for the rounding of a device whose operations are not deterministic."""
    return images.shape == others.shape and bool((images.float() - others.float()).abs().mean() < 1)


def _pair(size: Sequence[int] | None) -> tuple[int, int] | None:
    return None if size is None else (size[0], size[1])


def _check_names(metric: Metric, found: Scores, others: Mapping[str, Scores]) -> None:
    """Raise if a metric gives values names that others have."""
    for other, scores in others.items():
        taken = sorted(found.values.keys() & scores.values.keys())
        if taken:
            raise ValueError(f"Metrics {metric.name!r} and {other!r} both report {taken[0]!r}. Rename one of them.")


def _leaving_no_trace(*sources: Any) -> AbstractContextManager[Any]:
    """Restore random generators, those of ``sources`` too; record no gradients and make no inference tensors."""
    stack = ExitStack()
    stack.enter_context(undisturbed(*sources))
    stack.enter_context(preserved_generators())
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.no_grad())
    return stack
