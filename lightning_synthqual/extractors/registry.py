"""The catalogue of extractors; each is imported when it is first asked for."""

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

import torch

from lightning_synthqual.extractors.base import Extractor

Precision = Literal["float32", "bfloat16"]

CATALOGUE: dict[str, str] = {
    "inception": "lightning_synthqual.extractors.inception",
    "pixels": "lightning_synthqual.extractors.pixels",
    "wavelet": "lightning_synthqual.extractors.wavelet",
}


def load(
    name: str,
    *,
    weights: str | None = None,
    weights_dir: str | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> Extractor:
    """Load an extractor by its catalogue name.

    Args:
        name: ``"inception"``, ``"pixels"`` or ``"wavelet"``.
        weights: A weights file of the user's.
        weights_dir: A folder of weights files by their published names.
        device: Where to put the network.
        precision: ``"float32"``, or ``"bfloat16"`` for autocast; it is part of the identity.

    Returns:
        The extractor: ``extractor(images_uint8_nchw) -> dict[str, Tensor]``.

    Raises:
        ValueError: For an unknown name or precision, or weights that do not fit.
        FileNotFoundError: If the weights are missing and cannot be downloaded.

    Example:
        >>> import torch
        >>> load("wavelet")(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))["features"].shape
        torch.Size([2, 216])
    """
    if name not in CATALOGUE:
        nearest = get_close_matches(name, CATALOGUE, n=1, cutoff=0.0)[0]
        raise ValueError(f"Unknown extractor {name!r}; did you mean {nearest!r}? Known: {', '.join(CATALOGUE)}.")
    builder = importlib.import_module(CATALOGUE[name]).build
    extractor: Extractor = builder(weights, weights_dir)
    return extractor.with_precision(precision).to(device)


def load_configured(name: str, spec: Any, weights_dir: str | None, device: torch.device | str) -> Extractor:
    """Load the extractor ``name`` as ``extractors={name: spec}`` configures it.

    Args:
        name: A catalogue name, or the user's.
        spec: For a catalogue name ``None`` or a dict with ``weights`` and ``precision``; otherwise the user's network.
        weights_dir: A folder of weights files by their published names.
        device: Where to put the network.

    Raises:
        TypeError: If ``spec`` is of the wrong kind.
        ValueError: If ``spec`` has unknown keys.
    """
    if name not in CATALOGUE:
        from lightning_synthqual.extractors import custom

        return custom.build(name, spec).to(device)
    if not isinstance(spec or {}, Mapping):
        raise TypeError(
            f"`extractors[{name!r}]` configures the extractor of that name and must be a dict such as "
            f"{{'weights': 'file'}}, but got {type(spec).__name__}. Give your own network another name."
        )
    unknown = sorted(set(spec or {}) - {"weights", "precision"})
    if unknown:
        raise ValueError(f"`extractors[{name!r}]` takes 'weights' and 'precision', but got {unknown}.")
    return load(name, weights_dir=weights_dir, device=device, **(spec or {}))
