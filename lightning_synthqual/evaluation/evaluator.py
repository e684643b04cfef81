"""One evaluation, from pictures to a report, with or without a Trainer."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from lightning_synthqual.evaluation import path_length, protocol
from lightning_synthqual.evaluation.checks import check_comparable, check_enough, few_images, unlike_sizes
from lightning_synthqual.evaluation.context import Context
from lightning_synthqual.evaluation.exhibits import Exhibits
from lightning_synthqual.evaluation.extraction import Extracted, extract
from lightning_synthqual.evaluation.networks import Networks
from lightning_synthqual.evaluation.pictures import Drawn, Filed, Pictures
from lightning_synthqual.evaluation.reference import NO_REFERENCE, Reference, ReferenceReader, count_of, skipped
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.evaluation.scoring import Scoring, check_protocols
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.evaluation.studies import Studies
from lightning_synthqual.extractors.cache import FeatureCache
from lightning_synthqual.images.blocks import Block
from lightning_synthqual.images.kept import KeptImages
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler, evaluation_mode
from lightning_synthqual.reporting.pictures import grid
from lightning_synthqual.reporting.progress import Progress

_SHOWN = 64  # pictures in the sample grid
_TRIED = 2  # pictures of a dry run
_FEW_PAIRS = 16  # of a path length in a trial


class _Prepared(NamedTuple):
    """What is the same for every evaluation."""

    reference: Reference
    scoring: Scoring
    studies: Studies
    path_lengths: path_length.PathLengths | None


class Evaluator:
    """Measures generated images against a reference, on all processes together.

    Every process calls the same methods in the same order and gets the same results.

    Args:
        settings: What to measure.
        device: Where to extract and score.
        replica: Which copy of the model this process belongs to, where several processes have parts of one.
        progress: Where the first process shows how far it is.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device | str = "cpu",
        replica: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings
        self.context = Context(settings, device, replica, progress)
        self.ranks = self.context.ranks
        self.networks = Networks(self.context)
        self.cache = FeatureCache(settings.cache_dir)
        self._known: _Prepared | None = None

    def prepare(
        self, image_set: ImageSet | None, counterpart: ImageSet | None = None, *, use_cache: bool = True
    ) -> Reference:
        """Load the networks and the reference's features, which come from the cache if they are there already.

        Args:
            image_set: The images to compare with; ``None`` if no metric looks at real images.
            counterpart: The other real set, for floors and gaps.
            use_cache: Whether to read and write cached features.

        Raises:
            FileNotFoundError: If weights are missing.
            ValueError: If there are too few images, or they are not what was declared.
        """
        with self.ranks.together("loading the distance of path lengths"):
            path_lengths = self._path_lengths()
        reference = NO_REFERENCE
        if image_set is not None:
            with _leaving_no_trace(), self.ranks.together("preparing the reference"):
                self.networks.load_extractors()
                reader = ReferenceReader(self.context, self.networks, self.cache, use_cache)
                reference = reader.read(image_set, counterpart)
        with self.ranks.together("preparing the studies"):
            studies = Studies(self.context, self.networks, reference)
        scoring = Scoring(self.context, self.networks, reference)
        self._known = _Prepared(reference, scoring, studies, path_lengths)
        return reference

    def dry_run(self, sampler: Sampler, num_samples: int) -> None:
        """Draw two pictures and hold them against what was declared, so that faults show before the training.

        Raises:
            RuntimeError: If the sampler fails.
            TypeError: If it does not return images.
            ValueError: If the images are not what was declared, or too few are asked for.
        """
        known, device = self._prepared(), self.context.device
        with _leaving_no_trace(), self._sampling(sampler), self.ranks.together("a first try of the sampler"):
            self._check_generated(num_samples, "`num_samples`")
            images, seen = sampler.draw(0, range(_TRIED))
            self.context.warn(seen.check(self.settings.image_range, "the generator", "image_range"))
            self._compare_sizes(list(images.shape[2:]))
            for name, extractor in self.networks.extractors.items():
                check_comparable(name, extractor, known.reference.features[name], extractor(images.to(device)))
            if known.path_lengths is not None:
                for warning in known.path_lengths.check(sampler, device):
                    self.context.warn(warning)

    def evaluate(
        self, sampler: Sampler, num_samples: int, *, step: int | None = None, epoch: int | None = None
    ) -> Report:
        """Sample once, extract once per extractor, score every metric.

        Args:
            sampler: Draws the generated images.
            num_samples: How many.
            step: The loggers' step.
            epoch: The epoch.

        Returns:
            The report, the same on every process.
        """
        started, known = time.perf_counter(), self._prepared()
        with _leaving_no_trace(), self.ranks.together("the evaluation"):
            lengths: dict[str, float] = {}
            with self._sampling(sampler):
                if not self.settings.reads_real:
                    num_samples = min(num_samples, _SHOWN)  # nothing but the grid is made of them
                blocks = sampler.blocks(num_samples, self.settings.batch_size, self.ranks.replica, self.ranks.replicas)
                kept = KeptImages()
                generated = self._extract(self._own_parts(blocks), "sampling", num_samples, kept)
                if known.path_lengths is not None:
                    walked = time.perf_counter()
                    place = self.ranks, self.context.device, self.context.progress
                    lengths = known.path_lengths.measure(sampler, *place)
                    generated.seconds["paths"] = time.perf_counter() - walked
            self.context.warn(generated.seen.check(self.settings.image_range, "the generator", "image_range"))
            sampling = {**sampler.protocol, "batch_size": self.settings.batch_size}
            images = Drawn(kept, self.ranks)
            return self._report(generated, images, started, {"sampling": sampling}, step, epoch, lengths)

    def evaluate_images(self, image_set: ImageSet) -> Report:
        """Score images that exist already.

        Raises:
            ValueError: If there are too few images, or they are not what was declared.
        """
        started = time.perf_counter()
        with _leaving_no_trace(), self.ranks.together("the evaluation"):
            blocks = image_set.read(self.settings.batch_size, self.ranks.rank, self.ranks.world_size)
            generated = self._extract(blocks, "reading", count_of(image_set))
            self._check_generated(generated.count, f"`{image_set.role}`")
            self.context.warn(generated.seen.check(self.settings.image_range, f"`{image_set.role}`", "image_range"))
            if generated.size:
                self._compare_sizes(generated.size)
            extra = {"generated": skipped(image_set)}
            return self._report(generated, Filed(image_set, self.ranks), started, extra)

    def _report(
        self,
        generated: Extracted,
        images: Pictures,
        started: float,
        extra: dict[str, Any],
        step: int | None = None,
        epoch: int | None = None,
        lengths: dict[str, float] | None = None,
    ) -> Report:
        known, drawn = self._prepared(), time.perf_counter()
        with self.ranks.together("scoring"):
            check_protocols(self.context, known.reference, generated.count)
            scalars, found = known.scoring.score(generated, lengths or {})
        scored = time.perf_counter()
        with self.ranks.together("pictures and tables"):
            beside = known.studies.exhibit(generated, images, found)
        pictures = {} if generated.shown is None else {"samples": grid(generated.shown)}
        described = protocol.describe(self.context, self.networks, known.reference, generated)
        if known.path_lengths is not None:
            described["metrics"] |= known.path_lengths.describe()
        seen = {"size": generated.size, "clamped_share": generated.seen.clamped_share}
        described |= extra | {"generated": seen | extra.get("generated", {})}
        finished = time.perf_counter()
        timings = {**generated.seconds, "scoring": scored - drawn}
        if beside != Exhibits():
            timings["pictures"] = finished - scored
        timings["total"] = finished - started
        return Report(
            scalars | beside.scalars, described, step, epoch, timings, pictures | beside.pictures, beside.tables
        )

    def _extract(
        self, blocks: Iterator[Any], stage: str, total: int | None, keep: KeptImages | None = None
    ) -> Extracted:
        """Features of generated images, of which those are kept that are looked at again."""
        families = {metric.entry.family.name for metric in self.settings.resolved}
        everything = "memorization" in families
        first = self.settings.all_options["pairs"]["num_images"] if "pairs" in families else 0
        return extract(
            blocks,
            self.networks.extractors,
            self.ranks,
            self.context.device,
            stage=stage,
            show=_SHOWN,
            keep=keep if first or everything else None,
            keep_first=None if everything else first,
            progress=self.context.progress,
            total=total,
        )

    def _own_parts(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """What of a model's images this process extracts, where several processes have made them together."""
        parts = (block.part(self.ranks.peer, self.ranks.peers) for block in blocks)
        return (part for part in parts if len(part.positions))

    @contextmanager
    def _sampling(self, sampler: Sampler) -> Iterator[None]:
        """The generator as it is sampled from: in eval mode, with the buffers of rank 0; put back afterwards."""
        modules = [module for module in (sampler.owner, sampler.module) if isinstance(module, nn.Module)]
        with evaluation_mode(*modules), self.ranks.buffers_of_rank_zero(modules):
            yield

    def _path_lengths(self) -> path_length.PathLengths | None:
        """What measures path lengths: a pair network, or what the user gives."""
        settings = self.settings
        if not settings.walks:
            return None
        options = dict(settings.all_options["ppl"])
        if settings.trial:
            options["num_pairs"] = min(options["num_pairs"], _FEW_PAIRS)
        distance = options["distance"]
        measure: path_length.Distance = (
            self.networks.pair_network(distance).measure
            if path_length.is_network(distance)
            else path_length.resolve_distance(distance)
        )
        names = [metric.name for metric in settings.walks]
        return path_length.PathLengths(names, options, measure, settings.seed, settings.batch_size)

    def _check_generated(self, count: int, what: str) -> None:
        """Raise if the generated images are too few, and warn if they are few enough to bias a metric."""
        reference = self._prepared().reference
        check_protocols(self.context, reference, count)
        for family, extractor, metrics in self.settings.groups:
            check_enough(count, what, family, self.settings.options_of(family), metrics)
            columns = self.networks.rows(reference.features, family, extractor).shape[1]
            self.context.warn(few_images(count, reference.count, columns, family, metrics))

    def _compare_sizes(self, generated: list[int]) -> None:
        known = self._prepared()
        real = known.reference.protocol.get("size")
        known.studies.check_sizes(real, generated)
        self.context.warn(unlike_sizes(real, generated))

    def _prepared(self) -> _Prepared:
        if self._known is None:
            raise RuntimeError("`prepare` has to be called before images can be evaluated.")
        return self._known


def _leaving_no_trace() -> AbstractContextManager[Any]:
    """Random generators are put back, and nothing records gradients or becomes an inference tensor."""
    stack = ExitStack()
    stack.enter_context(preserved_generators())
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.no_grad())
    return stack
