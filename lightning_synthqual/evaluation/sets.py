"""The sets of images of an evaluation, each with its features and its pixels at hand: real ones, generated ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.inputs import InputTexts, check_number
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.base import Identity
from lightning_synthqual.extractors.extraction import Extracted, Extraction, Wanted
from lightning_synthqual.extractors.selection import Selected
from lightning_synthqual.images.blocks import Block
from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.labels import Labels
from lightning_synthqual.images.parts import check_disjoint
from lightning_synthqual.images.paths import LatentPathSampler
from lightning_synthqual.images.reference import ImageSet, fingerprint_of_pixels
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.images.store import ImageStore
from lightning_synthqual.metrics.base import Metric
from lightning_synthqual.metrics.figures import Role
from lightning_synthqual.metrics.views import Generated, ImageAccess, SetView
from lightning_synthqual.residence import OnDevice

SHOWN = 64  # images in the sample grid
_DIGESTS = Identity("digests", weights="none", preprocessing="SHA-256 of uint8 pixels and shape")


class DatasetImages:
    """Images of a data set, which every process can read."""

    def __init__(self, image_set: ImageSet, ranks: Ranks) -> None:
        self._image_set = image_set
        self._ranks = ranks

    def shard(self, count: int) -> list[int]:
        """Every so many-th of the first images."""
        return list(range(self._ranks.rank, count, self._ranks.world_size))

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """Any images."""
        return self._image_set.pick(indices)

    def name(self, index: int) -> str:
        """The name of the file, or the number of the item."""
        return self._image_set.name(index)

    def fetch(self, indices: Sequence[int], size: Sequence[int] | None) -> dict[int, Tensor]:
        """Nothing: the images are read when they are drawn."""
        return {}


class SampledImages:
    """Images of a generator, of which each process has stored those that it sampled."""

    def __init__(self, store: ImageStore, ranks: Ranks) -> None:
        self._store = store
        self._ranks = ranks

    def shard(self, count: int) -> list[int]:
        """Those of the first images that this process has sampled."""
        return [index for index in self._store if index < count]

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """Images that this process has sampled."""
        return [self._store[index] for index in indices]

    def name(self, index: int) -> str:
        """The number of the item."""
        return f"item {index}"

    def fetch(self, indices: Sequence[int], size: Sequence[int] | None) -> dict[int, Tensor]:
        """Any images, by index, on every process; every process asks for the same ones.

        Args:
            indices: Their numbers.
            size: (height, width) of all generated images, or ``None`` if they differ.
        """
        groups = [list(indices)] if size is not None else [[index] for index in indices]
        found: dict[int, Tensor] = {}
        for group in groups:
            own = [place for place, index in enumerate(group) if index in set(self._store)]
            rows = torch.stack([self._store[group[place]] for place in own]) if own else None
            if group:
                images = self._ranks.gather_rows(rows, own, len(group), torch.device("cpu"))
                found |= dict(zip(group, images, strict=True))
        return found


class FetchableImages(ImageAccess, Protocol):
    """Images of which some may be asked for by every process."""

    def fetch(self, indices: Sequence[int], size: Sequence[int] | None) -> dict[int, Tensor]:
        """Images by index, on every process, as far as they can't be read later."""
        ...


@dataclass(frozen=True)
class RealSet:
    """Real images of one role.

    Args:
        images: The images.
        view: The same with their features, as metrics see it, on the device.
        stored: The same with its features as they are stored, on the CPU.
        digests_of_features: Checksums of the stored features, by extractor; ``None`` for those that are not stored.
        identities: Identities of the networks that made the features, by extractor.
        digests: uint8 (N, 32) of the pixels, where they were asked for.
        protocol: Role, number, fingerprint and size of the images.
        complete: Whether they are all there are.
        cached: Whether all features came from the cache.
    """

    images: ImageSet
    view: SetView
    stored: SetView
    digests_of_features: Mapping[str, str | None]
    identities: Mapping[str, Identity]
    digests: Tensor | None
    protocol: Mapping[str, Any]
    complete: bool
    cached: bool


@dataclass(frozen=True)
class GeneratedSet:
    """Generated images with what was extracted from them.

    Args:
        extracted: Features, sizes and the first images.
        images: Access to single images.
        view: The same as metrics see it.
        protocol: Plain values that describe how the images were made.
        labels: Their classes, where scores by class were asked for.
    """

    extracted: Extracted
    images: FetchableImages
    view: Generated
    protocol: Mapping[str, Any]
    labels: Labels | None = None


def sample(
    workspace: Workspace, sampler: Sampler, count: int, metrics: Sequence[Metric], store: ImageStore
) -> GeneratedSet:
    """Sample a generator and extract features of its images.

    Args:
        workspace: Processes, device and networks.
        sampler: The generator.
        count: Number of images.
        metrics: The metrics, which say which images they look at again.
        store: Store of those images.
    """
    ranks, plan = workspace.ranks, workspace.plan
    blocks = sampler.blocks(count, plan.batch_size, ranks.replica, ranks.replicas)
    wanted = Wanted(SHOWN, store=store, stored=None if plan.worst else _kept(metrics))
    extraction = Extraction(workspace.selected(), ranks, workspace.device, wanted)
    extracted = extraction.run(_own_parts(blocks, ranks), "sampling", count, workspace.progress.stage)
    images = SampledImages(store, ranks)
    view = as_generated(workspace, extracted, images, sampler)
    return GeneratedSet(extracted, images, view, {**sampler.protocol, "batch_size": plan.batch_size})


def read_generated(workspace: Workspace, image_set: ImageSet, inputs: Inputs | None = None) -> GeneratedSet:
    """Read images that exist already and extract their features; ``inputs``: what they were made of, in their order."""
    _compare(workspace, image_set)
    extracted = _read(workspace, image_set, workspace.selected(), Wanted(SHOWN))
    check_number(extracted.count, inputs)
    images = DatasetImages(image_set, workspace.ranks)
    view = as_generated(workspace, extracted, images, None, inputs)
    return GeneratedSet(extracted, images, view, image_set.describe())


def read_real(workspace: Workspace, image_set: ImageSet, digest: bool) -> RealSet:
    """Features of a real set, from the cache where every process finds them; else they are there afterwards.

    Args:
        workspace: Processes, device, networks and cache.
        image_set: The images.
        digest: Whether the digests of the pixels are needed.

    Raises:
        ValueError: If there are no images, or they are not what was declared.
    """
    _compare(workspace, image_set)
    fingerprint, digests, cache = image_set.stamp(), None, workspace.cache
    if fingerprint is None:
        digests = _read(workspace, image_set, {}, Wanted(digest=True)).digests
        if digests is None:
            raise ValueError(f"`{image_set.role}` yields no images.")
        fingerprint = fingerprint_of_pixels(digests)
    rows, size = count_of(image_set), image_set.first_size()
    key = fingerprint if size is not None else f"{fingerprint} of a stream"  # its probe has another size
    metrics = [metric for metric in workspace.plan.metrics if metric.reads_real]
    extractors = workspace.selected(metrics, on_host=True)
    probes = {name: each.extractor.probe(size) for name, each in extractors.items() if cache.used}
    features = {
        name: cache.load(key + each.key, each.identity, rows=rows, probe=probes.get(name))
        for name, each in extractors.items()
    }
    if digest and digests is None:
        stored = cache.load(fingerprint, _DIGESTS, rows=rows)
        digests = None if stored is None else stored["digests"].cpu()
    missing = {name: each for name, each in extractors.items() if features[name] is None}
    wanted = digest and digests is None
    if missing or wanted:
        extracted = _read(workspace, image_set, missing, Wanted(digest=wanted, on_host=True))
        for name, extractor in missing.items():
            found = extracted.features[name]
            features[name] = cache.save(key + extractor.key, extractor.identity, found, probe=probes.get(name))
        if wanted and extracted.digests is not None:
            digests = extracted.digests
            cache.save(fingerprint, _DIGESTS, {"digests": digests})
    if digests is not None and image_set.parts.divided:
        check_disjoint(digests, f"`{image_set.role}`")
    known = {name: outputs or {} for name, outputs in features.items()}
    sums = {name: cache.digest(key + each.key, each.identity) for name, each in extractors.items()}
    return _real_set(workspace, image_set, fingerprint, known, sums, digests, not missing)


def _real_set(
    workspace: Workspace,
    image_set: ImageSet,
    fingerprint: str,
    features: Mapping[str, Mapping[str, Tensor]],
    digests_of_features: Mapping[str, str | None],
    digests: Tensor | None,
    cached: bool,
) -> RealSet:
    rows = next((rows for outputs in features.values() for rows in outputs.values()), digests)
    count, size = len(image_set) if rows is None else len(rows), image_set.first_size()
    role: Any = image_set.role
    stored = as_view(workspace, role, features, DatasetImages(image_set, workspace.ranks), size, count)
    on_device = {name: OnDevice(outputs, workspace.residence) for name, outputs in features.items()}
    return RealSet(
        images=image_set,
        view=replace(stored, features=on_device),
        stored=stored,
        digests_of_features=digests_of_features,
        identities={name: each.identity for name, each in workspace.extractors.items()},
        digests=digests,
        protocol={
            "role": image_set.role,
            "num_images": count,
            "size": size,
            "fingerprint": fingerprint,
            **described(image_set),
        },
        complete=image_set.holds_all(count),
        cached=cached,
    )


def _compare(workspace: Workspace, image_set: ImageSet) -> None:
    """Find out whether processes have different parts of a set."""
    if workspace.ranks.world_size > 1:
        image_set.compare(workspace.ranks.gather_objects, workspace.ranks.rank)
        if any(metric.reads_pixels for metric in workspace.plan.metrics):
            image_set.check_whole()


def _read(
    workspace: Workspace,
    image_set: ImageSet,
    extractors: Mapping[str, Selected],
    wanted: Wanted,
) -> Extracted:
    """Read a set on all processes, and compare its values with what was declared."""
    ranks = workspace.ranks
    blocks = image_set.read(workspace.plan.batch_size, ranks.rank, ranks.world_size)
    extraction = Extraction(extractors, ranks, workspace.device, wanted, image_set.parts)
    extracted = extraction.run(blocks, "reading", count_of(image_set), workspace.progress.stage)
    image_set.parts = image_set.parts.counted(extracted.counts)
    workspace.warn(image_set.check_range(extracted.seen))
    return extracted


def as_generated(
    workspace: Workspace,
    extracted: Extracted,
    images: ImageAccess,
    sampler: Sampler | None,
    inputs: Inputs | None = None,
) -> Generated:
    """Generated images as metrics see them, with what they were made of: the sampler's inputs, or those given."""
    view = as_view(workspace, "generated", extracted.features, images, extracted.size, extracted.count)
    paths = None if sampler is None else partial(_paths, workspace, sampler)
    inputs = sampler.inputs if sampler is not None else inputs
    targets = inputs if inputs is not None and inputs.targets is not None else None
    texts = InputTexts(workspace, inputs) if inputs is not None and inputs.has_texts else None
    return Generated(**vars(view), paths=paths, targets=targets, texts=texts)


def as_view(
    workspace: Workspace,
    role: Role,
    features: Mapping[str, Mapping[str, Tensor]],
    images: ImageAccess,
    size: Sequence[int] | None,
    count: int,
) -> SetView:
    """A set of images as metrics see it."""
    embeddings = {name: extractor.embedding for name, extractor in workspace.extractors.items()}
    return SetView(role, features, embeddings, images, (size[0], size[1]) if size else None, count)


def _paths(
    workspace: Workspace, sampler: Sampler, space: str, sampling: str, options: Mapping[str, Any]
) -> LatentPathSampler:
    plan = workspace.plan
    return LatentPathSampler(sampler, workspace.ranks, space, sampling, options, plan.seed, plan.batch_size)


def _kept(metrics: Sequence[Metric]) -> int | None:
    """How many of the first images are looked at again; ``None``: all."""
    if any(metric.generated_images == "all" for metric in metrics):
        return None
    return max((metric.options["num_images"] for metric in metrics if metric.generated_images == "first"), default=0)


def _own_parts(blocks: Iterator[Block], ranks: Ranks) -> Iterator[Block]:
    """The images that this process extracts, where several processes have made them with one copy of the model."""
    parts = (block.part(ranks.peer, ranks.peers) for block in blocks)
    return (part for part in parts if len(part.positions))


def described(image_set: ImageSet) -> dict[str, Any]:
    """What was stated of a set, and how many images of a folder were skipped."""
    names = image_set.skipped
    return {**image_set.describe(), **({"num_skipped": len(names), "first_skipped": names[:5]} if names else {})}


def count_of(image_set: ImageSet) -> int | None:
    """Number of images, if it is known before they are read."""
    return None if image_set.indices is None else len(image_set)
