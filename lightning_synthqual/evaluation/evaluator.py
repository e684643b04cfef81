"""One evaluation, from pictures to a report, with or without a Trainer."""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation import exhibits, pairs, path_length
from lightning_synthqual.evaluation.counterpart import Counterpart
from lightning_synthqual.evaluation.exhibits import Exhibits
from lightning_synthqual.evaluation.extraction import Extracted, extract
from lightning_synthqual.evaluation.pictures import Drawn, Filed, Pictures
from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.extractors.base import Extractor, Features
from lightning_synthqual.extractors.cache import FeatureCache
from lightning_synthqual.extractors.pairs import PairNetwork
from lightning_synthqual.extractors.registry import load_configured, load_configured_pair
from lightning_synthqual.images.blocks import Block
from lightning_synthqual.images.kept import KeptImages
from lightning_synthqual.images.randomness import preserved_generators
from lightning_synthqual.images.reference import ImageSet, fingerprint_of_pixels
from lightning_synthqual.images.sampling import Sampler, evaluation_mode
from lightning_synthqual.metrics.features import check_features
from lightning_synthqual.metrics.names import COMPANIONS, BothSets, Family, Metric, Scores, Study
from lightning_synthqual.metrics.pictures import ms_ssim_scales
from lightning_synthqual.metrics.share import Share
from lightning_synthqual.reporting.pictures import grid
from lightning_synthqual.reporting.progress import Progress, Silent

_log = logging.getLogger(__name__)
_SHOWN = 64  # pictures in the sample grid
_TRIED = 2  # pictures of a dry run
_FEW_PAIRS = 16  # of a path length in a trial


@dataclass(frozen=True)
class Reference:
    """What generated images are compared with.

    Args:
        count: Number of images.
        features: By extractor name.
        states: What each metric family has prepared from them, by (family, extractor).
        counterpart: The other real set, where there are both training and held-out images and a metric needs them.
        sets: The images by role.
        protocol: Role, number, fingerprint and size of the images.
        complete: Whether they are all there are.
        cached: Whether all the features came from the cache.
        seconds: How long it took.
    """

    count: int
    features: dict[str, Features]
    states: dict[tuple[str, str], Any]
    counterpart: Counterpart | None
    sets: dict[str, ImageSet]
    protocol: dict[str, Any]
    complete: bool
    cached: bool
    seconds: float


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
        self.device = torch.device(device)
        self.ranks = Ranks(replica)
        self.progress: Progress = progress if progress is not None and self.ranks.rank == 0 else Silent()
        self.extractors: dict[str, Extractor] = {}
        self.pair_networks: dict[str, PairNetwork] = {}
        self.cache = FeatureCache(settings.cache_dir)
        self._share = Share(self.ranks.rank, self.ranks.world_size, self.ranks.total)
        self._reference: Reference | None = None
        self._pair_studies: dict[str, pairs.Study] = {}
        self._path_lengths: path_length.PathLengths | None = None
        self._warned: set[str] = set()

    def prepare(
        self, image_set: ImageSet | None, counterpart: ImageSet | None = None, *, use_cache: bool = True
    ) -> Reference:
        """Load the extractors and the reference's features, which come from the cache if they are there already.

        Args:
            image_set: The images to compare with; ``None`` if no metric looks at real images.
            counterpart: The other real set, for floors and gaps.
            use_cache: Whether to read and write cached features.

        Raises:
            FileNotFoundError: If weights are missing.
            ValueError: If there are too few images, or they are not what was declared.
        """
        with self.ranks.together("loading the distance of path lengths"):
            self._load_path_lengths()
        self._reference = _NO_REFERENCE
        if image_set is not None:
            self._reference = self._read_reference(image_set, counterpart, use_cache)
        with self.ranks.together("preparing the studies"):
            self._prepare_studies()
        return self._reference

    def _read_reference(self, image_set: ImageSet, counterpart: ImageSet | None, use_cache: bool) -> Reference:
        started = time.perf_counter()
        with _leaving_no_trace(), self.ranks.together("preparing the reference"):
            self._load_extractors()
            fingerprint = image_set.stamp() or self._hash(image_set)
            features, cached = self._reference_features(image_set, fingerprint, use_cache)
            count = len(next(iter(next(iter(features.values())).outputs.values())))
            size = image_set.first_size()
            for family, extractor, metrics in self._groups():
                self._check_count(count, f"`{image_set.role}`", family, metrics)
                check_features(self._rows(features, family, extractor), image_set.role)
            other = None if counterpart is None else self._read_counterpart(counterpart, use_cache)
            states = {
                (family.name, extractor): family.prepare(
                    self._real(family, extractor, image_set.role, features, other), self._options(family), self._share
                )
                for family, extractor, _ in self._groups()
            }
        sets = {each.role: each for each in (image_set, counterpart) if each is not None}
        protocol = {"role": image_set.role, "num_images": count, "size": size, "fingerprint": fingerprint}
        protocol |= _skipped(image_set)
        return Reference(
            count=count,
            features=features,
            states=states,
            counterpart=other,
            sets=sets,
            protocol=protocol,
            complete=_complete(image_set, count),
            cached=cached,
            seconds=time.perf_counter() - started,
        )

    def dry_run(self, sampler: Sampler, num_samples: int) -> None:
        """Draw two pictures and hold them against what was declared, so that faults show before the training.

        Raises:
            RuntimeError: If the sampler fails.
            TypeError: If it does not return images.
            ValueError: If the images are not what was declared, or too few are asked for.
        """
        with _leaving_no_trace(), self._sampling(sampler), self.ranks.together("a first try of the sampler"):
            self._check_generated(num_samples, "`num_samples`")
            images, seen = sampler.draw(0, range(_TRIED))
            self._warn(seen.check(self.settings.image_range, "the generator", "image_range"))
            self._compare_sizes(list(images.shape[2:]))
            for name, network in self.extractors.items():
                self._compare_features(name, network(images.to(self.device)))
            if self._path_lengths is not None:
                for warning in self._path_lengths.check(sampler, self.device):
                    self._warn(warning)

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
        started = time.perf_counter()
        with _leaving_no_trace(), self.ranks.together("the evaluation"):
            lengths: dict[str, float] = {}
            with self._sampling(sampler):
                if not self.settings.reads_real:
                    num_samples = min(num_samples, _SHOWN)  # nothing but the grid is made of them
                blocks = sampler.blocks(num_samples, self.settings.batch_size, self.ranks.replica, self.ranks.replicas)
                kept = KeptImages()
                generated = self._extract(self._own_parts(blocks), "sampling", num_samples, kept)
                if self._path_lengths is not None:
                    walked = time.perf_counter()
                    lengths = self._path_lengths.measure(sampler, self.ranks, self.device, self.progress)
                    generated.seconds["paths"] = time.perf_counter() - walked
            self._warn(generated.seen.check(self.settings.image_range, "the generator", "image_range"))
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
            generated = self._extract(blocks, "reading", _count(image_set))
            self._check_generated(generated.count, f"`{image_set.role}`")
            self._warn(generated.seen.check(self.settings.image_range, f"`{image_set.role}`", "image_range"))
            if generated.size:
                self._compare_sizes(generated.size)
            extra = {"generated": _skipped(image_set)}
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
        drawn = time.perf_counter()
        with self.ranks.together("scoring"):
            self._check_protocols(generated.count)
            scalars, found = self._score(generated, lengths or {})
        scored = time.perf_counter()
        with self.ranks.together("pictures and tables"):
            beside = self._exhibit(generated, images, found)
        pictures = {} if generated.shown is None else {"samples": grid(generated.shown)}
        seen = {"size": generated.size, "clamped_share": generated.seen.clamped_share}
        protocol = self._protocol(generated) | extra | {"generated": seen | extra.get("generated", {})}
        finished = time.perf_counter()
        timings = {**generated.seconds, "scoring": scored - drawn}
        if beside != Exhibits():
            timings["pictures"] = finished - scored
        timings["total"] = finished - started
        return Report(
            scalars | beside.scalars, protocol, step, epoch, timings, pictures | beside.pictures, beside.tables
        )

    def _score(
        self, generated: Extracted, lengths: dict[str, float]
    ) -> tuple[dict[str, float], dict[tuple[str, str], Scores]]:
        """The scalars, with those that are known already, and all that was found by (family, extractor)."""
        values = dict(lengths)
        everything: dict[tuple[str, str], Scores] = {}
        groups = self._groups()
        with self.progress.stage("scoring", len(groups)) as advance:
            for family, name, metrics in groups:
                found = self._score_family(family, name, metrics, generated)
                everything[family.name, name] = found
                for metric in metrics:
                    for suffix in ("", *COMPANIONS):
                        if metric.entry.value + suffix in found:
                            values[metric.name + suffix] = float(found[metric.entry.value + suffix])
                advance(1)
        order = [metric.name + suffix for metric in self.settings.resolved for suffix in ("", *COMPANIONS)]
        undefined = [name for name, value in values.items() if not isfinite(value)]
        if undefined:
            self._warn(f"{', '.join(undefined)} came out undefined and is left out.")
        # Rank 0's digits for everyone: the last of them may differ between kinds of hardware, and decisions hang on it.
        scalars: dict[str, float] = self.ranks.gather_objects(
            {name: values[name] for name in order if name in values and name not in undefined}
        )[0]
        return scalars, everything

    def _score_family(self, family: Family, name: str, metrics: list[Metric], generated: Extracted) -> Scores:
        """Everything a family finds in the features of one extractor, with floors and gaps."""
        reference = self._prepared()
        self._compare_features(name, generated.features[name])
        real = self._real(family, name, reference.protocol["role"], reference.features, reference.counterpart)
        fake = check_features(generated.features[name][self._output(family, name)], "generated")
        state = reference.states[family.name, name]
        found = family.score(real, state, fake, self._options(family), self._share)
        return found | self._beside(family, name, metrics, fake)

    def _exhibit(self, generated: Extracted, images: Pictures, found: dict[tuple[str, str], Scores]) -> Exhibits:
        """Pictures and tables, which rank 0 draws, and the scalars of the study of pairs."""
        draws, shown = self.ranks.rank == 0, Exhibits()
        for (family, name), scores in found.items():
            if family == "memorization":
                options, ending = self.settings.all_options[family], "" if name == "dreamsim" else f"_{name}"
                sets = (images, *self._real_pictures())
                shown |= exhibits.neighbors(scores, options, *sets, ending=ending, draws=draws)
        for metric in self._studies():
            name = str(metric.extractor)
            fake = {each: outputs[self.extractors[each].embedding] for each, outputs in generated.features.items()}
            if metric.entry.value == "pairs":
                shown |= self._pair_studies[metric.name].compare(
                    pairs.Side(images, fake), name=metric.name, draws=draws
                )
            elif draws:
                train, held_out = self._both_embeddings(name)
                rows = {"training": train, "held-out": held_out, "generated": fake[name]}
                shown |= exhibits.feature_space(rows, self.settings.all_options["feature_space"], name, metric.name)
        return shown

    def _beside(self, family: Family, name: str, metrics: list[Metric], fake: Tensor) -> Scores:
        """Floors and gaps, where there is another real set."""
        reference, options = self._prepared(), self._options(family)
        other = reference.counterpart
        if other is None:
            return {}
        real, rows = (self._rows(features, family, name) for features in (reference.features, other.features))
        state = reference.states[family.name, name]
        found: dict[str, Scores | str] = {}
        if family.floor is not None:
            found["_floor"] = other.floor(family, name, options, real, state, rows, len(fake), self._share)
        if family.gap:
            found["_gap"] = other.gap(family, name, options, real, rows, fake, self._share)
        beside: Scores = {}
        for suffix, values in found.items():
            if isinstance(values, str):
                self._warn(f"{', '.join(metric.name + suffix for metric in metrics)} is left out: {values}.")
            else:
                beside |= {value + suffix: values[value] for value in {metric.entry.value for metric in metrics}}
        return beside

    def _real(
        self, family: Family, name: str, role: str, features: dict[str, Features], other: Counterpart | None
    ) -> Tensor | BothSets:
        """What a family compares generated rows with."""
        rows = self._rows(features, family, name)
        if not family.needs_both or other is None:
            return rows
        return BothSets(*_by_role(role, rows, self._rows(other.features, family, name)))

    def _both_embeddings(self, name: str) -> tuple[Tensor, Tensor]:
        """Features of training and of held-out images."""
        reference, embedding = self._prepared(), self.extractors[name].embedding
        other = {} if reference.counterpart is None else reference.counterpart.features
        found = [features[name].outputs[embedding] for features in (reference.features, other)]
        return _by_role(reference.protocol["role"], *found)

    def _real_pictures(self) -> tuple[Pictures, Pictures]:
        """Training and held-out images."""
        sets = self._prepared().sets
        return Filed(sets["real"], self.ranks), Filed(sets["held_out"], self.ranks)

    def _prepare_studies(self) -> None:
        """Load what measures pairs."""
        for metric in self._studies():
            options = self.settings.all_options[metric.entry.family.name]
            if metric.entry.value != "pairs":
                continue
            similarities: dict[str, pairs.Similarity | None] = {}
            for name in options["metrics"]:
                similarities[name] = None if name in self.extractors else self._similarity(name)
            names = [name for name, similarity in similarities.items() if similarity is None] + [str(metric.extractor)]
            both = {name: self._both_embeddings(name) for name in names}
            sides = [
                pairs.Side(pictures, {name: rows[place] for name, rows in both.items()})
                for place, pictures in enumerate(self._real_pictures())
            ]
            self._pair_studies[metric.name] = pairs.Study(
                sides[0], sides[1], str(metric.extractor), similarities, options, self.ranks, self.device
            )

    def _load_path_lengths(self) -> None:
        """Load what measures path lengths: a pair network, or what the user gives."""
        settings = self.settings
        if not settings.walks:
            return
        options = dict(settings.all_options["ppl"])
        if settings.trial:
            options["num_pairs"] = min(options["num_pairs"], _FEW_PAIRS)
        distance = options["distance"]
        if path_length.is_network(distance):
            self._similarity(distance)
            measure: path_length.Distance = self.pair_networks[distance].measure
        else:
            measure = path_length.resolve_distance(distance)
        names = [metric.name for metric in settings.walks]
        self._path_lengths = path_length.PathLengths(names, options, measure, settings.seed, settings.batch_size)

    def _similarity(self, name: str) -> pairs.Similarity:
        """A measure of two stacks of images: of pixels, or a pair network."""
        if name in pairs.PIXEL_METRICS:
            return pairs.PIXEL_METRICS[name]
        if name not in self.pair_networks:
            spec = (self.settings.extractors or {}).get(name)
            with self.ranks.node_leader_first():
                self.pair_networks[name] = load_configured_pair(name, spec, self.settings.weights_dir, self.device)
        return self.pair_networks[name]

    def _read_counterpart(self, image_set: ImageSet, use_cache: bool) -> Counterpart | None:
        """The other real set's features, if a metric makes use of them."""
        groups = [
            (family, name)
            for family, name, _ in self._groups()
            if family.floor is not None or family.gap or family.needs_both
        ]
        if not groups and not self._studies():
            return None
        fingerprint = image_set.stamp() or self._hash(image_set)
        features, _ = self._reference_features(image_set, fingerprint, use_cache)
        for family, name in groups:
            check_features(self._rows(features, family, name), image_set.role)
        count = len(next(iter(next(iter(features.values())).outputs.values())))
        for family, _, metrics in self._groups():
            if family.needs_both:
                self._check_count(count, f"`{image_set.role}`", family, metrics)
        protocol = {"role": image_set.role, "num_images": count, "fingerprint": fingerprint} | _skipped(image_set)
        return Counterpart(image_set.role, features, protocol, self.settings.seed)

    def _load_extractors(self) -> None:
        with self.ranks.node_leader_first():
            for name in dict.fromkeys(metric.extractor for metric in self.settings.resolved if metric.extractor):
                spec = (self.settings.extractors or {}).get(name)
                self.extractors[name] = load_configured(name, spec, self.settings.weights_dir, self.device)

    def _hash(self, image_set: ImageSet) -> str:
        read = self._read(image_set, {}, digest=True)
        if read.digests is None:
            raise ValueError(f"`{image_set.role}` yields no images.")
        return fingerprint_of_pixels(read.digests)

    def _reference_features(
        self, image_set: ImageSet, fingerprint: str, use_cache: bool
    ) -> tuple[dict[str, Features], bool]:
        """The features of a set, read where every process finds them, else computed and written."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, extractor in self.extractors.items():
            outputs = self.cache.load(fingerprint, extractor.identity) if use_cache else None
            if all(self.ranks.gather_objects(outputs is not None)) and outputs is not None:
                found[name] = {key: rows.to(self.device) for key, rows in outputs.items()}
        missing = {name: extractor for name, extractor in self.extractors.items() if name not in found}
        if missing:
            computed = self._read(image_set, missing).features
            for name, extractor in missing.items():
                found[name] = computed[name]
                if use_cache and self.ranks.leads_node:
                    self.cache.save(fingerprint, extractor.identity, computed[name])
        features = {name: Features(extractor.identity, found[name]) for name, extractor in self.extractors.items()}
        return features, not missing

    def _read(self, image_set: ImageSet, extractors: dict[str, Extractor], digest: bool = False) -> Extracted:
        blocks = image_set.read(self.settings.batch_size, self.ranks.rank, self.ranks.world_size)
        read = extract(
            blocks,
            extractors,
            self.ranks,
            self.device,
            stage="reading",
            digest=digest,
            progress=self.progress,
            total=_count(image_set),
        )
        self._warn(read.seen.check(image_set.image_range, f"`{image_set.role}`", image_set.range_argument))
        return read

    def _own_parts(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """What of a model's images this process extracts, where several processes have made them together."""
        parts = (block.part(self.ranks.peer, self.ranks.peers) for block in blocks)
        return (part for part in parts if len(part.positions))

    def _extract(
        self, blocks: Iterator[Any], stage: str, total: int | None, keep: KeptImages | None = None
    ) -> Extracted:
        names = {metric.entry.family.name for metric in self.settings.resolved}
        first = 0  # of so many images more will be asked than their features
        if "pairs" in names:
            first = self.settings.all_options["pairs"]["num_images"]
        everything = "memorization" in names
        return extract(
            blocks,
            self.extractors,
            self.ranks,
            self.device,
            stage=stage,
            show=_SHOWN,
            keep=keep if first or everything else None,
            keep_first=None if everything else first,
            progress=self.progress,
            total=total,
        )

    @contextmanager
    def _sampling(self, sampler: Sampler) -> Iterator[None]:
        """The generator as it is sampled from: in eval mode, with the buffers of rank 0; put back afterwards."""
        modules = [module for module in (sampler.owner, sampler.module) if isinstance(module, nn.Module)]
        with evaluation_mode(*modules), self.ranks.buffers_of_rank_zero(modules):
            yield

    def _groups(self) -> list[tuple[Family, str, list[Metric]]]:
        """Metrics that are computed together, in the order in which they were asked for."""
        groups: dict[tuple[str, str], tuple[Family, str, list[Metric]]] = {}
        for metric in self.settings.resolved:
            family = metric.entry.family
            if isinstance(family, Family) and metric.extractor is not None:
                groups.setdefault((family.name, metric.extractor), (family, metric.extractor, []))[2].append(metric)
        return list(groups.values())

    def _studies(self) -> list[Metric]:
        return [metric for metric in self.settings.resolved if isinstance(metric.entry.family, Study)]

    def _prepared(self) -> Reference:
        if self._reference is None:
            raise RuntimeError("`prepare` has to be called before images can be evaluated.")
        return self._reference

    def _options(self, family: Family) -> dict[str, Any]:
        return self.settings.all_options[family.name]

    def _output(self, family: Family, name: str) -> str:
        """The name of the output of an extractor that a family reads."""
        return family.output or self.extractors[name].embedding

    def _rows(self, features: dict[str, Features], family: Family, name: str) -> Tensor:
        output, outputs = self._output(family, name), features[name].outputs
        if output not in outputs:
            raise ValueError(
                f"{family.name} reads the output {output!r} of extractor {name!r}, which gives {', '.join(outputs)}."
            )
        return outputs[output]

    def _check_count(self, count: int, what: str, family: Family, metrics: list[Metric]) -> None:
        least = family.min_rows(self._options(family))
        if count < least:
            raise ValueError(f"{_names(metrics)} needs at least {least} images, but {what} has {count}. Give more.")

    def _check_generated(self, count: int, what: str) -> None:
        """Raise if the generated images are too few, and warn if they are few enough to bias a metric."""
        reference = self._prepared()
        self._check_protocols(count)
        for family, extractor, metrics in self._groups():
            self._check_count(count, what, family, metrics)
            columns = self._rows(reference.features, family, extractor).shape[1]
            if family.wants_more_rows_than_columns and min(count, reference.count) < columns:
                self._warn(
                    f"{_names(metrics)}: {count} generated or {reference.count} real images are fewer than the "
                    f"{columns} features, so the value is biased upwards. Compare it only at equal numbers."
                )

    def _check_protocols(self, generated: int) -> None:
        """Raise if the numbers of images are not those of a published protocol whose name was asked for."""
        if self.settings.trial:
            return
        reference = self._prepared()
        for family, _, metrics in self._groups():
            if family.protocol is None:
                continue
            fault = family.protocol.fault(generated, reference.count, reference.protocol["role"], reference.complete)
            if fault is not None:
                raise ValueError(f"{_names(metrics)} is a published protocol, which {fault}.")

    def _compare_sizes(self, generated: list[int]) -> None:
        real = self._prepared().protocol.get("size")
        for study in self._pair_studies.values():
            study.check_sizes(real, generated)
        if real is not None and real != generated:
            self._warn(
                f"Real images are {real[0]}x{real[1]} and generated {generated[0]}x{generated[1]} (height x width); "
                f"the difference in resolution is part of every score. Pass `image_size={tuple(generated)}` to resize "
                "the real ones."
            )

    def _compare_features(self, name: str, outputs: dict[str, Tensor]) -> None:
        reference = self._prepared().features[name]
        if reference.identity != self.extractors[name].identity:
            raise ValueError(
                f"Features of {reference.identity} cannot be compared with those of {self.extractors[name].identity}."
            )
        for output, rows in outputs.items():
            columns = reference.outputs[output].shape[1]
            if rows.shape[1] != columns:
                raise ValueError(
                    f"Extractor {name!r} gives {rows.shape[1]} features for generated and {columns} for real images. "
                    "Resize the real ones by `image_size=`, or pool inside the extractor."
                )

    def _protocol(self, generated: Extracted) -> dict[str, Any]:
        settings, other = self.settings, self._prepared().counterpart
        metrics = {
            metric.name: {"family": family.name, "extractor": extractor, **self._options(family)}
            for family, extractor, group in self._groups()
            for metric in group
        }
        for metric in self._studies():
            family = metric.entry.family
            options = self.settings.all_options[family.name]
            metrics[metric.name] = {"family": family.name, "extractor": metric.extractor, **options}
            if "ms_ssim" in options.get("metrics", ()) and generated.size:
                metrics[metric.name]["ms_ssim_scales"] = ms_ssim_scales(*generated.size)
        if self._path_lengths is not None:
            metrics |= self._path_lengths.describe()
        return {
            "version": __version__,
            "num_samples": generated.count,
            "seed": settings.seed,
            "image_range": list(settings.image_range),
            "real_range": list(settings.real_range or settings.image_range),
            "image_size": list(settings.size) if settings.size else None,
            "quantisation": "uint8, round half to even, clamped",
            "reference": self._prepared().protocol or None,
            "counterpart": other.protocol if other else None,
            "extractors": {name: extractor.identity.describe() for name, extractor in self.extractors.items()},
            "pairs": {name: network.identity.describe() for name, network in self.pair_networks.items()},
            "metrics": metrics,
        }

    def _warn(self, message: str | None) -> None:
        """Say something once, on one process."""
        if message is not None and message not in self._warned and self.ranks.rank == 0:
            _log.warning(message)
        if message is not None:
            self._warned.add(message)


_NO_REFERENCE = Reference(0, {}, {}, None, {}, {}, complete=False, cached=False, seconds=0.0)


def _by_role(role: str, reference: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Training and held-out rows."""
    return (reference, other) if role == "real" else (other, reference)


def _skipped(image_set: ImageSet) -> dict[str, Any]:
    """How many pictures of a folder were left out, and the first of them."""
    names = image_set.skipped
    return {"num_skipped": len(names), "first_skipped": names[:5]} if names else {}


def _count(image_set: ImageSet) -> int | None:
    """Number of images, if it is known before they are read."""
    return None if image_set.indices is None else len(image_set)


def _names(metrics: list[Metric]) -> str:
    return ", ".join(metric.name for metric in metrics)


def _complete(image_set: ImageSet, count: int) -> bool:
    """Whether ``count`` images are all that the source of a set holds."""
    wanted = image_set.num_images
    return wanted is None or count < wanted or (image_set.indices is not None and len(image_set.dataset) <= count)


def _leaving_no_trace() -> AbstractContextManager[Any]:
    """Random generators are put back, and nothing records gradients or becomes an inference tensor."""
    stack = ExitStack()
    stack.enter_context(preserved_generators())
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.no_grad())
    return stack
