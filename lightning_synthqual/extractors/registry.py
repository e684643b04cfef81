"""The catalogue of extractors and pair networks; each is imported when it is first asked for."""

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch

from lightning_synthqual.extractors.base import Extractor, check_extractor_name
from lightning_synthqual.extractors.pairs import PairNetwork
from lightning_synthqual.extractors.texts import TextEncoder
from lightning_synthqual.extractors.weights import WeightsRequirement
from lightning_synthqual.precision import check_network_precision

Precision = Literal["float32", "tf32", "bfloat16"]

CATALOGUE: dict[str, str] = {
    "inception": "inception",
    "inception_antialias": "inception",
    "inception_clean": "inception",
    "clip": "clip",
    "clip_vitl14": "clip",
    "clip_vitb16": "clip",
    "clip_vitb32": "clip",
    "dinov2": "dinov2",
    "dinov2_vitb14": "dinov2",
    "dinov2_vits14": "dinov2",
    "dreamsim": "dreamsim",
    "dreamsim_dino_vitb16": "dreamsim",
    "dreamsim_dinov2_vitb14": "dreamsim",
    "dreamsim_clip_vitb32": "dreamsim",
    "dreamsim_open_clip_vitb32": "dreamsim",
    "vgg16": "vgg16",
    "efficientnet_lite0": "efficientnet",
    "wavelet": "wavelet",
    "pixels": "pixels",
}
PAIRS: dict[str, str] = {
    "lpips_alex": "lpips",
    "lpips_vgg": "lpips",
    "dreamsim": "dreamsim",
    "dreamsim_dino_vitb16": "dreamsim",
    "dreamsim_dinov2_vitb14": "dreamsim",
    "dreamsim_clip_vitb32": "dreamsim",
    "dreamsim_open_clip_vitb32": "dreamsim",
}


def load(
    name: str,
    *,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> Extractor:
    """Load an extractor by its catalogue name.

    Args:
        name: A name of the catalogue, such as ``"inception"``, ``"clip"`` or ``"dinov2"``, or any of open_clip's:
            ``"<architecture>"`` or ``"<architecture>:<tag>"``.
        weights: A weights file of the user's (for DreamSim a folder).
        weights_dir: A folder of weights files by their published names, into which missing ones are downloaded.
        device: Device of the network.
        precision: ``"float32"``; ``"tf32"`` on devices that have it; or ``"bfloat16"`` for autocast. It is part of the
            identity.

    Returns:
        The extractor: ``extractor(images_uint8_nchw) -> dict[str, Tensor]``.

    Raises:
        ValueError: For an unknown name, a precision that is unknown or that the device does not have, or weights that
            do not fit.
        FileNotFoundError: If the weights are missing and cannot be downloaded.

    Example:
        >>> import torch
        >>> load("wavelet")(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))["features"].shape
        torch.Size([2, 216])
    """
    check_network_precision(precision, device)
    extractor: Extractor = _extractor_module(name).build(name, weights, weights_dir)
    return extractor.with_precision(precision).to(device)


def load_pair(
    name: str,
    *,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> PairNetwork:
    """Load a pair network: ``pair(images, images) -> (N,)`` distances.

    Args:
        name: ``"lpips_alex"``, ``"lpips_vgg"``, ``"dreamsim"`` or a single-network variant of the latter.
        weights: A weights file of the user's (for DreamSim a folder).
        weights_dir: A folder of weights files by their published names, into which missing ones are downloaded.
        device: Device of the network.
        precision: ``"float32"``; ``"tf32"`` on devices that have it; or ``"bfloat16"`` for autocast. It is part of the
            identity.

    Returns:
        The network. LPIPS (Zhang et al. 2018, arXiv:1801.03924) agrees with the package lpips, DreamSim (Fu et al.
        2023, arXiv:2306.09344) with the package dreamsim.

    Raises:
        ValueError: For an unknown name, a precision that is unknown or that the device does not have, or weights that
            do not fit.
        FileNotFoundError: If the weights are missing and cannot be downloaded.

    Example:
        >>> load_pair("lpips")
        Traceback (most recent call last):
        ValueError: Unknown pair network 'lpips'; did you mean 'lpips_vgg'? ...
    """
    check_network_precision(precision, device)
    pair: PairNetwork = _module(_look_up(name, PAIRS, "pair network")).build_pair(name, weights, weights_dir)
    return pair.with_precision(precision).to(device)


def load_configured(name: str, spec: Any, weights_dir: str | Path | None, device: torch.device | str) -> Extractor:
    """Load the extractor ``name`` as ``extractors={name: spec}`` configures it.

    Args:
        name: A catalogue name, open_clip's, or the user's.
        spec: For a known name ``None``, a dict with ``weights`` and ``precision``, or the extractor of that name;
            otherwise the user's network or extractor.
        weights_dir: A folder of weights files by their published names.
        device: Device of the network.

    Returns:
        The extractor on ``device``; the user's own object stays where and as it is.

    Raises:
        TypeError: If ``spec`` is of the wrong kind.
        ValueError: If ``spec`` has unknown keys, or the name has characters that no name may have.
    """
    check_extractor_name(name)
    configures = spec is None or (isinstance(spec, Mapping) and not spec.keys() - {"weights", "precision"})
    own = isinstance(spec, Extractor) and spec.identity.name == name
    if own or (name not in CATALOGUE and not configures):
        from lightning_synthqual.extractors import custom

        return custom.build(name, spec).to(device)
    return load(name, weights_dir=weights_dir, device=device, **_configuration(name, spec))


def _configuration(name: str, spec: Any) -> Mapping[str, Any]:
    """The arguments of ``load`` that ``extractors={name: spec}`` gives for a known network."""
    if not isinstance(spec or {}, Mapping):
        raise TypeError(
            f"`extractors[{name!r}]` configures the extractor of that name and must be a dict such as "
            f"{{'weights': 'file'}}, but got {type(spec).__name__}. Give your own network another name."
        )
    unknown = sorted(set(spec or {}) - {"weights", "precision"})
    if unknown:
        raise ValueError(f"`extractors[{name!r}]` takes 'weights' and 'precision', but got {unknown}.")
    return spec or {}


def load_configured_pair(
    name: str, spec: Any, weights_dir: str | Path | None, device: torch.device | str
) -> PairNetwork:
    """Load the pair network ``name`` as ``extractors={name: spec}`` configures it.

    Args:
        name: A name of ``load_pair``, or the user's for a ``PairNetwork``.
        spec: ``None``, a dict with ``weights`` and ``precision``, or the user's ``PairNetwork``.
        weights_dir: A folder of weights files by their published names.
        device: Device of the network.

    Returns:
        The network on ``device``; the user's own object stays where and as it is.

    Raises:
        TypeError: If ``spec`` is of the wrong kind.
        ValueError: If ``spec`` has unknown keys, or the name is unknown.
    """
    if isinstance(spec, PairNetwork):
        return spec.renamed(name).to(device)
    return load_pair(name, weights_dir=weights_dir, device=device, **_configuration(name, spec))


def load_configured_text(
    name: str, spec: Any, weights_dir: str | Path | None, device: torch.device | str
) -> TextEncoder:
    """Load the text encoder beside the extractor ``name``, as ``extractors={name: spec}`` configures both.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If the extractor has no text encoder.
    """
    module = None if name not in CATALOGUE and name not in open_clip_names() else _extractor_module(name)
    if module is None or not hasattr(module, "build_text"):
        raise ValueError(
            f"Extractor {name!r} has no text network. Those of open_clip have one: 'clip', 'clip_vitb32', or any "
            "`architecture:tag`."
        )
    arguments = dict(_configuration(name, spec))
    precision = arguments.pop("precision", "float32")
    check_network_precision(precision, device)
    encoder: TextEncoder = module.build_text(name, weights_dir=weights_dir, **arguments)
    return encoder.with_precision(precision).to(device)


def open_clip_names() -> list[str]:
    """The names that ``load`` takes beyond the catalogue; importing open_clip takes seconds."""
    names: list[str] = _module("clip").names()
    return names


def required_weights(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The weights files of an extractor or pair network, with their paths if they are there.

    Raises:
        ValueError: For an unknown name.
    """
    module = _module(PAIRS[name]) if name in PAIRS else _extractor_module(name)
    requirements: list[WeightsRequirement] = module.required(name, weights_dir)
    return requirements


def _extractor_module(name: str) -> ModuleType:
    if name not in CATALOGUE and name.partition(":")[0] in open_clip_names():
        return _module("clip")
    return _module(_look_up(name, CATALOGUE, "extractor"))


def _look_up(name: str, catalogue: dict[str, str], kind: str) -> str:
    if name not in catalogue:
        nearest = get_close_matches(name, catalogue, n=1, cutoff=0.0)[0]
        raise ValueError(f"Unknown {kind} {name!r}; did you mean {nearest!r}? Known: {', '.join(catalogue)}.")
    return catalogue[name]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"lightning_synthqual.extractors.{name}")
