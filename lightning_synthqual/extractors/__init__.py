"""Pictures to features: one file a network, a catalogue, weights, and the cache of reference features."""

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.registry import load

__all__ = ["Extractor", "Identity", "load"]
