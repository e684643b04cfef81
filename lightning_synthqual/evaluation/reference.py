"""What generated images are compared with: the real sets, their features, and what is prepared from them once."""

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_synthqual.evaluation.checks import check_enough
from lightning_synthqual.evaluation.context import Context
from lightning_synthqual.evaluation.counterpart import Counterpart
from lightning_synthqual.evaluation.extraction import Extracted, extract
from lightning_synthqual.evaluation.networks import Networks
from lightning_synthqual.evaluation.pictures import Filed
from lightning_synthqual.extractors.base import Extractor, Features
from lightning_synthqual.extractors.cache import FeatureCache
from lightning_synthqual.images.reference import ImageSet, fingerprint_of_pixels
from lightning_synthqual.metrics.families import BothSets, Family
from lightning_synthqual.metrics.features import check_features


@dataclass(frozen=True)
class Reference:
    """What generated images are compared with.

    Args:
        count: Number of images.
        features: By extractor name.
        states: What each metric family has prepared from them, by (family, extractor).
        counterpart: The other real set, where there are both training and held-out images and a metric needs them.
        sets: The images by role.
        protocol: Role, number, fingerprint and size of the images; empty if no metric looks at real images.
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

    def embeddings(self, extractor: str, networks: Networks) -> BothSets:
        """Features of training and of held-out images."""
        output = networks.extractors[extractor].embedding
        other = {} if self.counterpart is None else self.counterpart.features
        found = [features[extractor].outputs[output] for features in (self.features, other)]
        return _by_role(self.protocol["role"], *found)

    def pictures(self, context: Context) -> tuple[Filed, Filed]:
        """Training and held-out images."""
        return Filed(self.sets["real"], context.ranks), Filed(self.sets["held_out"], context.ranks)


NO_REFERENCE = Reference(0, {}, {}, None, {}, {}, complete=False, cached=False, seconds=0.0)


def compared_rows(
    family: Family,
    extractor: str,
    networks: Networks,
    role: str,
    features: dict[str, Features],
    other: Counterpart | None,
) -> Tensor | BothSets:
    """What a family compares generated rows with: those of the reference, or of both real sets."""
    rows = networks.rows(features, family, extractor)
    if not family.needs_both or other is None:
        return rows
    return _by_role(role, rows, networks.rows(other.features, family, extractor))


class ReferenceReader:
    """Reads real sets, on all processes together, and lets each metric family prepare what it needs of them.

    Args:
        context: What every part of an evaluation knows.
        networks: The networks; the extractors are loaded.
        cache: Where features are kept.
        use_cache: Whether to read and write there.
    """

    def __init__(self, context: Context, networks: Networks, cache: FeatureCache, use_cache: bool) -> None:
        self._context = context
        self._networks = networks
        self._cache = cache
        self._use_cache = use_cache

    def read(self, image_set: ImageSet, counterpart: ImageSet | None) -> Reference:
        """The reference, and the other real set if a metric makes use of it.

        Raises:
            ValueError: If there are too few images, or they are not what was declared.
        """
        started = time.perf_counter()
        context, networks = self._context, self._networks
        settings = context.settings
        fingerprint, features, cached = self._features(image_set)
        count = _rows_of(features)
        size = image_set.first_size()
        for family, extractor, metrics in settings.groups:
            check_enough(count, f"`{image_set.role}`", family, settings.options_of(family), metrics)
            check_features(networks.rows(features, family, extractor), image_set.role)
        other = None if counterpart is None else self._counterpart(counterpart)
        states = {
            (family.name, extractor): family.prepare(
                compared_rows(family, extractor, networks, image_set.role, features, other),
                settings.options_of(family),
                context.share,
            )
            for family, extractor, _ in settings.groups
        }
        return Reference(
            count=count,
            features=features,
            states=states,
            counterpart=other,
            sets={each.role: each for each in (image_set, counterpart) if each is not None},
            protocol={
                "role": image_set.role,
                "num_images": count,
                "size": size,
                "fingerprint": fingerprint,
                **skipped(image_set),
            },
            complete=_complete(image_set, count),
            cached=cached,
            seconds=time.perf_counter() - started,
        )

    def _counterpart(self, image_set: ImageSet) -> Counterpart | None:
        """The other real set's features, if a metric makes use of them."""
        settings = self._context.settings
        groups = [
            group for group in settings.groups if group[0].floor is not None or group[0].gap or group[0].needs_both
        ]
        if not groups and not settings.studies:
            return None
        fingerprint, features, _ = self._features(image_set)
        count = _rows_of(features)
        for family, extractor, metrics in groups:
            check_features(self._networks.rows(features, family, extractor), image_set.role)
            if family.needs_both:
                check_enough(count, f"`{image_set.role}`", family, settings.options_of(family), metrics)
        protocol = {"role": image_set.role, "num_images": count, "fingerprint": fingerprint} | skipped(image_set)
        return Counterpart(image_set.role, features, protocol, settings.seed)

    def _features(self, image_set: ImageSet) -> tuple[str, dict[str, Features], bool]:
        """Fingerprint and features of a set, and whether all were where every process finds them; else they are now."""
        fingerprint = image_set.stamp() or self._hash(image_set)
        extractors, ranks, device = self._networks.extractors, self._context.ranks, self._context.device
        found: dict[str, dict[str, Tensor]] = {}
        for name, extractor in extractors.items():
            outputs = self._cache.load(fingerprint, extractor.identity) if self._use_cache else None
            if all(ranks.gather_objects(outputs is not None)) and outputs is not None:
                found[name] = {key: rows.to(device) for key, rows in outputs.items()}
        missing = {name: extractor for name, extractor in extractors.items() if name not in found}
        if missing:
            computed = self._read(image_set, missing).features
            for name, extractor in missing.items():
                found[name] = computed[name]
                if self._use_cache and ranks.leads_node:
                    self._cache.save(fingerprint, extractor.identity, computed[name])
        features = {name: Features(extractor.identity, found[name]) for name, extractor in extractors.items()}
        return fingerprint, features, not missing

    def _hash(self, image_set: ImageSet) -> str:
        read = self._read(image_set, {}, digest=True)
        if read.digests is None:
            raise ValueError(f"`{image_set.role}` yields no images.")
        return fingerprint_of_pixels(read.digests)

    def _read(self, image_set: ImageSet, extractors: dict[str, Extractor], digest: bool = False) -> Extracted:
        context = self._context
        blocks = image_set.read(context.settings.batch_size, context.ranks.rank, context.ranks.world_size)
        read = extract(
            blocks,
            extractors,
            context.ranks,
            context.device,
            stage="reading",
            digest=digest,
            progress=context.progress,
            total=count_of(image_set),
        )
        context.warn(read.seen.check(image_set.image_range, f"`{image_set.role}`", image_set.range_argument))
        return read


def skipped(image_set: ImageSet) -> dict[str, Any]:
    """How many pictures of a folder were left out, and the first of them."""
    names = image_set.skipped
    return {"num_skipped": len(names), "first_skipped": names[:5]} if names else {}


def count_of(image_set: ImageSet) -> int | None:
    """Number of images, if it is known before they are read."""
    return None if image_set.indices is None else len(image_set)


def _by_role(role: str, reference: Tensor, other: Tensor) -> BothSets:
    return BothSets(reference, other) if role == "real" else BothSets(other, reference)


def _rows_of(features: dict[str, Features]) -> int:
    return len(next(iter(next(iter(features.values())).outputs.values())))


def _complete(image_set: ImageSet, count: int) -> bool:
    """Whether ``count`` images are all that the source of a set holds."""
    wanted = image_set.num_images
    return wanted is None or count < wanted or (image_set.indices is not None and len(image_set.dataset) <= count)
