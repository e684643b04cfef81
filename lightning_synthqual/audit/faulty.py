"""Faulty sets and their features: one extraction for each fault and dose, kept on disk."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log10
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.__about__ import __version__
from lightning_synthqual.audit.faults import Fault, Source, image_generators
from lightning_synthqual.extractors.base import EXTRACTION_BATCH
from lightning_synthqual.extractors.cache import FeatureCache
from lightning_synthqual.extractors.selection import Selected
from lightning_synthqual.images.callables import label_of
from lightning_synthqual.images.transfer import to_device

Features = Mapping[str, Mapping[str, Tensor]]  # by extractor and output, (N, D)
_TESTED, _REFERENCE = "tested", "reference"


def to_grey(images: Tensor) -> Tensor:
    """The rounded mean of the channels in each of them, uint8 (N, 3, H, W)."""
    total = images.to(torch.int16).sum(dim=1, keepdim=True)
    return ((total + 1) // 3).to(torch.uint8).expand_as(images).contiguous()


def is_grey(images: Tensor) -> bool:
    """Whether all channels are equal."""
    return bool((images == images[:, :1]).all())


@dataclass(frozen=True)
class FaultySet:
    """A set of images with a fault, as metrics see it.

    Args:
        features: Features of its rows.
        ids: Of which image each row is, integers (M,): those of the tested images, then those of the reference.
        psnr: PSNR against the untouched images in dB, pooled over all pixels; ``None`` where images are exchanged.
        grey: Whether all its images are grey.
    """

    features: Features
    ids: Tensor
    psnr: float | None
    grey: bool


class Pictures:
    """The images of an audit.

    Args:
        tested: Images that get faults, uint8 (N, 3, H, W).
        reference: Images that they are compared with, uint8 (R, 3, H, W).
        extractors: The networks.
        device: Where they are.
        cache: Folder of features.
        seed: Random seed of all faults.

    Attributes:
        seconds: Time that each extractor took for the untouched tested images; without those that were in the cache.
    """

    def __init__(
        self,
        tested: Tensor,
        reference: Tensor,
        extractors: Mapping[str, Selected],
        device: torch.device,
        cache: FeatureCache,
        seed: int,
    ) -> None:
        self.images = {_TESTED: tested, _REFERENCE: reference}
        self.grey = is_grey(tested) and is_grey(reference)
        self._extractors = extractors
        self._device = device
        self._cache = cache
        self._seed = seed
        self._digests = {role: _digest(images) for role, images in self.images.items()}
        self._untouched: dict[tuple[str, bool], Features] = {}
        self._last_seconds: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def untouched(self, role: str, grey: bool = False) -> Features:
        """Features of the images of a role, ``"tested"`` or ``"reference"``, greyed or as they are."""
        grey = grey and not is_grey(self.images[role])
        if (role, grey) not in self._untouched:
            images = self.images[role]
            parts = (to_grey(part) if grey else part for part in images.split(EXTRACTION_BATCH))
            key = f"audit {self._digests[role]}{' grey' if grey else ''}"
            self._untouched[role, grey] = self._extract(parts, key, len(images))
            if role == _TESTED and not grey:
                self.seconds = self._last_seconds
        return self._untouched[role, grey]

    def with_fault(self, fault: Fault, dose: float, groups: Tensor | None, grey: bool = False) -> FaultySet:
        """The set with one dose of a fault, greyed or as it is."""
        if fault.of_set:
            rows = fault.choose(len(self.images[_TESTED]), dose, self._generator(fault), **self._sets(groups))
            return self._of_sources(rows, f"{fault.name} {dose}", grey)
        return self._of_pixels(fault, dose, grey)

    def control(self, fault: Fault, dose: float, groups: Tensor | None, grey: bool = False) -> FaultySet:
        """The untouched rows that the set with a fault is compared with."""
        count = len(self.images[_TESTED])
        if not fault.of_set:
            return FaultySet(self.untouched(_TESTED, grey), torch.arange(count), None, grey or self.grey)
        rows = fault.control(count, dose, self._generator(fault), **self._sets(groups))
        return self._of_sources(rows, "", grey)

    def show(self, fault: Fault, dose: float, indices: Sequence[int], groups: Tensor | None = None) -> Tensor:
        """Some images with a fault, uint8 (n, 3, H, W); of a fault of the set its rows at these places."""
        if not fault.of_set:
            chosen = self.images[_TESTED][list(indices)]
            return fault.apply(chosen, dose, self._generators(fault, indices))
        rows = fault.choose(len(self.images[_TESTED]), dose, self._generator(fault), **self._sets(groups))
        return torch.stack([self._render(rows[index]) for index in indices if index < len(rows)])

    def _sets(self, groups: Tensor | None) -> dict[str, Any]:
        return {"groups": groups, "reference_count": len(self.images[_REFERENCE])}

    def _generator(self, fault: Fault) -> torch.Generator:
        return image_generators(self._seed, [zlib.crc32(fault.name.encode())])[0]

    def _generators(self, fault: Fault, indices: Sequence[int]) -> list[torch.Generator]:
        return image_generators(self._seed + zlib.crc32(fault.name.encode()), indices)

    def _of_pixels(self, fault: Fault, dose: float, grey: bool) -> FaultySet:
        tested = self.images[_TESTED]
        seen = _Seen()

        def parts() -> Iterator[Tensor]:
            for start in range(0, len(tested), EXTRACTION_BATCH):
                part = tested[start : start + EXTRACTION_BATCH]
                changed = fault.apply(part, dose, self._generators(fault, range(start, start + len(part))))
                seen.add(part, changed)
                yield to_grey(changed) if grey else changed

        key = f"audit {self._digests[_TESTED]} {fault.name} {label_of(fault.function)} {dose} {self._seed} {grey}"
        features = self._extract(parts(), key, len(tested))
        return FaultySet(features, torch.arange(len(tested)), seen.psnr, seen.grey)

    def _of_sources(self, rows: Sequence[Source], name: str, grey: bool) -> FaultySet:
        """Rows of features that are known; only means of several images are extracted."""
        count = len(self.images[_TESTED])
        both = [self.untouched(role, grey) for role in (_TESTED, _REFERENCE)]
        ids = torch.tensor(
            [index + (count if role == _REFERENCE else 0) for row in rows for role, index in row.parts[:1]]
        )
        mixed = [place for place, row in enumerate(rows) if len(row.parts) > 1]
        features = {
            extractor: {output: torch.cat([each[extractor][output] for each in both])[ids] for output in outputs}
            for extractor, outputs in both[0].items()
        }
        if mixed:
            images = (self._render(rows[place])[None] for place in mixed)
            digests = " ".join(self._digests.values())
            made = self._extract(
                (to_grey(image) if grey else image for image in images),
                f"audit {digests} {name} {self._seed} {grey}",
                len(mixed),
            )
            for extractor, outputs in features.items():
                for output in outputs:
                    outputs[output][mixed] = made[extractor][output].to(outputs[output].dtype)
        return FaultySet(features, ids, None, grey or self.grey)

    def _render(self, row: Source) -> Tensor:
        parts = torch.stack([self.images[role][index] for role, index in row.parts])
        return parts.float().mean(dim=0).round().to(torch.uint8)

    def _extract(self, parts: Iterator[Tensor], key: str, count: int) -> dict[str, dict[str, Tensor]]:
        """Features of images that come in parts, from the cache where they are; all parts are taken in any case."""
        key = f"{key} {__version__}"
        found = {
            name: self._cache.load(key + each.key, each.identity, rows=count) for name, each in self._extractors.items()
        }
        missing = {name: each for name, each in self._extractors.items() if found[name] is None}
        rows: dict[str, dict[str, list[Tensor]]] = {name: {} for name in missing}
        self._last_seconds = dict.fromkeys(missing, 0.0)
        for part in parts:
            images = to_device(part, self._device) if missing else part
            for name, extractor in missing.items():
                start = perf_counter()
                for output, values in extractor(images).items():
                    rows[name].setdefault(output, []).append(values.cpu())
                self._last_seconds[name] += perf_counter() - start
        for name, extractor in missing.items():
            joined = {output: torch.cat(values) for output, values in rows[name].items()}
            self._cache.save(key + extractor.key, extractor.identity, joined)
            found[name] = joined
        return {name: dict(outputs or {}) for name, outputs in found.items()}


class _Seen:
    """What is seen of faulty images as they pass."""

    def __init__(self) -> None:
        self._squares, self._count = 0.0, 0
        self.grey = True

    def add(self, untouched: Tensor, changed: Tensor) -> None:
        for one, other in zip(untouched, changed, strict=True):  # in small pieces, which stay in the processor's cache
            self._squares += float((one.float() - other.float()).square().sum())
        self._count += untouched.numel()
        self.grey = self.grey and is_grey(changed)

    @property
    def psnr(self) -> float:
        return 10 * log10(255**2 * self._count / self._squares) if self._squares else inf


def _digest(images: Tensor) -> str:
    return hashlib.sha256(repr(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes()).hexdigest()
