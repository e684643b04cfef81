"""Images to features: one file per network, a catalogue, weights, and the cache of reference features."""

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.pairs import PairNetwork
from lightning_synthqual.extractors.registry import load, load_pair

__all__ = ["Extractor", "Identity", "PairNetwork", "load", "load_pair"]
