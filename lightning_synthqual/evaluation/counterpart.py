"""What the other real set tells: which value real images have, and which of the two the generated ones are nearer.

The reference is what the metrics compare with. Where there are training and held-out images, the one that is not the
reference is its counterpart.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.extractors.base import Features
from lightning_synthqual.metrics.families import Family, Scores
from lightning_synthqual.metrics.share import Share


@dataclass(frozen=True)
class Counterpart:
    """Real images that are not the reference.

    Args:
        role: ``"real"`` or ``"held_out"``.
        features: By extractor name.
        protocol: Role, number and fingerprint of the images.
        seed: Of the choice of images where numbers are to be equal.
    """

    role: str
    features: dict[str, Features]
    protocol: dict[str, Any]
    seed: int
    _known: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def floor(
        self,
        family: Family,
        extractor: str,
        options: dict[str, Any],
        real: Tensor,
        state: Any,
        rows: Tensor,
        generated: int,
        share: Share,
    ) -> Scores | str:
        """The values of the counterpart against the reference, or why there are none.

        Args:
            family: What to compute.
            extractor: Of what features.
            options: Its options.
            real: Features of the reference (N, D).
            state: What the family prepared from them.
            rows: Features of the counterpart (M, D).
            generated: Number of generated images.
            share: This process's share of the work.
        """
        count = len(rows) if family.floor == "of all" else generated
        least = max(count, family.min_rows(options))
        if len(rows) < least:
            return f"{len(rows)} images in `{self.role}` are fewer than {least}, with which it would be comparable"
        key = ("floor", family.name, extractor, count)
        if key not in self._known:
            self._known[key] = family.score(real, state, self._choose(rows, count), options, share)
        found: Scores = self._known[key]
        return found

    def gap(
        self,
        family: Family,
        extractor: str,
        options: dict[str, Any],
        real: Tensor,
        rows: Tensor,
        fake: Tensor,
        share: Share,
    ) -> Scores | str:
        """The values of generated images against held-out minus those against as many training images, or why not.

        Args:
            family: What to compute.
            extractor: Of what features.
            options: Its options.
            real: Features of the reference (N, D).
            rows: Features of the counterpart (M, D).
            fake: Features of the generated images.
            share: This process's share of the work.
        """
        count = min(len(real), len(rows))
        if count < family.min_rows(options):
            return f"{count} images in the smaller real set are fewer than {family.min_rows(options)}"
        key = ("gap", family.name, extractor)
        if key not in self._known:
            sets = self._choose(real, count), self._choose(rows, count)
            self._known[key] = [(part, family.prepare(part, options, share)) for part in sets]
        to_reference, to_counterpart = (
            family.score(part, state, fake, options, share) for part, state in self._known[key]
        )
        sign = 1 if self.role == "held_out" else -1
        return {name: sign * (value - to_reference[name]) for name, value in to_counterpart.items()}

    def _choose(self, rows: Tensor, count: int) -> Tensor:
        """``count`` of the rows, always the same ones."""
        if count == len(rows):
            return rows
        chosen = np.sort(np.random.default_rng(self.seed).permutation(len(rows))[:count])
        return rows[torch.from_numpy(chosen).to(rows.device)]
