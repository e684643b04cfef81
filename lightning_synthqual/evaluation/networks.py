"""The networks that an evaluation looks through: extractors, and those that compare two pictures."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_synthqual.evaluation import pairs
from lightning_synthqual.evaluation.context import Context
from lightning_synthqual.extractors.base import Extractor, Features
from lightning_synthqual.extractors.pairs import PairNetwork
from lightning_synthqual.extractors.registry import load_configured, load_configured_pair
from lightning_synthqual.metrics.families import Family


class Networks:
    """The networks that the metrics ask for, loaded when they are needed.

    Args:
        context: What every part of an evaluation knows.

    Attributes:
        extractors: By name.
        pairs: Networks that compare two pictures, by name.
    """

    def __init__(self, context: Context) -> None:
        self.extractors: dict[str, Extractor] = {}
        self.pairs: dict[str, PairNetwork] = {}
        self._context = context

    def load_extractors(self) -> None:
        """Load every extractor that a metric reads, one process of each machine first.

        Raises:
            FileNotFoundError: If weights are missing.
        """
        settings, device = self._context.settings, self._context.device
        with self._context.ranks.node_leader_first():
            for name in dict.fromkeys(metric.extractor for metric in settings.resolved if metric.extractor):
                self.extractors[name] = load_configured(name, self._configuration(name), settings.weights_dir, device)

    def similarity(self, name: str) -> pairs.Similarity:
        """A measure of two stacks of images: of pixels, or a pair network.

        Raises:
            FileNotFoundError: If weights are missing.
        """
        if name in pairs.PIXEL_METRICS:
            return pairs.PIXEL_METRICS[name]
        return self.pair_network(name)

    def pair_network(self, name: str) -> PairNetwork:
        """A network that compares two pictures, one process of each machine first.

        Raises:
            FileNotFoundError: If weights are missing.
        """
        if name not in self.pairs:
            settings, device = self._context.settings, self._context.device
            with self._context.ranks.node_leader_first():
                self.pairs[name] = load_configured_pair(name, self._configuration(name), settings.weights_dir, device)
        return self.pairs[name]

    def output(self, family: Family, extractor: str) -> str:
        """The name of the output of an extractor that a family reads."""
        return family.output or self.extractors[extractor].embedding

    def rows(self, features: Mapping[str, Features], family: Family, extractor: str) -> Tensor:
        """Of all features, those (N, D) that a family reads.

        Raises:
            ValueError: If the extractor does not give them.
        """
        output, outputs = self.output(family, extractor), features[extractor].outputs
        if output not in outputs:
            raise ValueError(
                f"{family.name} reads the output {output!r} of extractor {extractor!r}, which gives "
                f"{', '.join(outputs)}."
            )
        return outputs[output]

    def _configuration(self, name: str) -> Any:
        return (self._context.settings.extractors or {}).get(name)
