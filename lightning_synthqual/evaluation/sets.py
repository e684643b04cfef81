"""The sets of images of an evaluation, each with its features and its pixels at hand: real ones, generated ones."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.plan import Plan
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.base import Identity
from lightning_synthqual.extractors.extraction import Extracted, Extraction, Wanted
from lightning_synthqual.extractors.selection import Selected
from lightning_synthqual.extractors.texts import InputTexts
from lightning_synthqual.images.access import DatasetImages, FetchableImages, SampledImages
from lightning_synthqual.images.blocks import Block
from lightning_synthqual.images.identity import sampled
from lightning_synthqual.images.inputs import DEFAULT_SAMPLES, Inputs
from lightning_synthqual.images.labels import as_class
from lightning_synthqual.images.parts import check_disjoint
from lightning_synthqual.images.paths import LatentPathSampler
from lightning_synthqual.images.reference import ImageSet, fingerprint_of_pixels
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.images.source import Images
from lightning_synthqual.images.store import ImageStore
from lightning_synthqual.metrics.base import Metric
from lightning_synthqual.metrics.figures import Role
from lightning_synthqual.metrics.views import Generated, ImageAccess, Labels, SetView
from lightning_synthqual.residence import OnDevice

SHOWN = 64  # images in the sample grid
_DIGESTS = Identity("digests", weights="none", preprocessing="SHA-256 of uint8 pixels and shape")


def open_inputs(
    plan: Plan,
    source: Any,
    real: Any,
    *,
    num_samples: int = DEFAULT_SAMPLES,
    repeat: bool = False,
    given: str | None = None,
    example: str = "data",
) -> Inputs | None:
    """Open what a generator is conditioned on, if anything is given, and check that metrics find what they need.

    Args:
        plan: The plan.
        source: What was given as ``inputs``.
        real: What was given as ``real``.
        num_samples: Number of images to generate; 10,000 also stands for as many as there are items if these are fewer.
        repeat: Whether items may be used several times.
        given: Which of the trainer's data they are, if they are.
        example: The data in the line to pass where ``real`` is missing; ``"None"`` stands for the trainer's.

    Raises:
        FileNotFoundError: If a folder is missing.
        TypeError: If ``source`` is no set of items.
        ValueError: If there are too few items, or a metric does not find targets or texts.
    """
    if Images.of(source).source is None:
        inputs = None
    else:
        inputs = Inputs(
            source,
            num_samples=num_samples,
            most=plan.most_samples,
            repeat=repeat,
            given=given,
            seed=plan.seed,
            declared=plan.real_range,
            fallback=plan.image_range,
            image_size=plan.size,
            num_workers=plan.num_workers,
        )
    plan.check_inputs(inputs)
    if inputs is not None and inputs.targets is not None and any(each.reads_targets for each in plan.metrics):
        inputs.targets.inspect()
        inputs.keep_targets()
    _check_reference(plan, real, inputs, example)
    return inputs


def _check_reference(plan: Plan, real: Any, inputs: Inputs | None, example: str) -> None:
    """Raise if nothing says which images of (input, target) items are the real ones; ``example`` stands for these."""
    images = Images.of(real)
    asked = plan.reads_real and plan.reference == "real" and images.source is None and images.key is None
    if asked and inputs is not None and inputs.distinct_targets:
        names = [name for metric in plan.metrics if metric.reads_real for name in metric.names]
        raise ValueError(
            f"{names[0]} compares generated images with real ones, but `real` is missing, and without a word the first "
            "image of an item, its input, would be taken. Pass "
            f"`real=Images({example}, key={inputs.target_key!r})` to compare with targets."
        )


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
    """

    extracted: Extracted
    images: FetchableImages
    view: Generated
    protocol: Mapping[str, Any]


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
    view = replace(as_generated(workspace, extracted, images, sampler), labels=_drawn_labels(workspace, sampler, count))
    return GeneratedSet(extracted, images, view, {**sampler.protocol, "batch_size": plan.batch_size})


def read_generated(workspace: Workspace, image_set: ImageSet, inputs: Inputs | None = None) -> GeneratedSet:
    """Read images that exist already and extract their features; ``inputs``: what they were made of, in their order."""
    _compare(workspace, image_set)
    extracted = _read(workspace, image_set, workspace.selected(), Wanted(SHOWN))
    if inputs is not None:
        inputs.check_count(extracted.count)
    images = DatasetImages(image_set, workspace.ranks)
    view = as_generated(workspace, extracted, images, None, inputs)
    view = replace(view, labels=_labels(workspace, image_set))
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
    stored = replace(stored, labels=_labels(workspace, image_set))
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
    texts = None
    if inputs is not None and inputs.has_texts:
        texts = InputTexts(inputs, workspace.ranks, workspace.load_text, workspace.once)
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


def _labels(workspace: Workspace, image_set: ImageSet) -> Labels | None:
    """The classes of a data set, where a metric looks at them."""
    if not workspace.plan.reads_labels:
        return None
    rows = workspace.once(("labels", id(image_set)), lambda: _read_labels(workspace, image_set))
    return Labels(rows, image_set.class_names)


def _drawn_labels(workspace: Workspace, sampler: Sampler, count: int) -> Labels | None:
    """The classes of samples, which are the same at each evaluation, where a metric looks at them."""
    if not workspace.plan.reads_labels:
        return None
    numbers = workspace.once(
        ("drawn labels", count), lambda: torch.tensor(sampler.class_numbers(count, workspace.plan.batch_size))
    )
    source = sampler.label_source if sampler.labels == "data" else None
    of_items = _labels(workspace, source) if isinstance(source, ImageSet) else None
    return Labels(numbers) if of_items is None else Labels(of_items.rows[numbers], of_items.names)


def _read_labels(workspace: Workspace, image_set: ImageSet) -> Tensor:
    """The labels (N,) of a set, from the cache where every process finds them; else they are there afterwards."""
    ranks, cache, stamp, count = workspace.ranks, workspace.cache, image_set.stamp(), len(image_set)

    def class_of(position: int) -> int:
        return as_class(image_set.label(position), f"`{image_set.role}` (item {position})")

    # The same images may have other labels, which is seen in those of a few.
    probe = json.dumps(ranks.gather_objects([class_of(position) for position in sampled(count)])[0])
    identity = Identity("labels", weights="none", preprocessing=hashlib.sha256(probe.encode()).hexdigest())
    stored = None if stamp is None else cache.load(stamp, identity, rows=count)
    if stored is not None:
        return stored["labels"].clone()
    own = list(range(ranks.rank, count, ranks.world_size))
    rows = torch.tensor([class_of(position) for position in own], dtype=torch.int64)
    labels = ranks.gather_rows(rows, own, count, torch.device("cpu"))
    if stamp is not None:
        cache.save(stamp, identity, {"labels": labels})
    return labels


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
