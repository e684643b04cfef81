"""Any network of the user's as an extractor."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.fingerprint import fingerprint
from lightning_synthqual.extractors.resize import pillow
from lightning_synthqual.extractors.weights import sha256_of_state
from lightning_synthqual.importing import resolve_object

_KEYS = ("network", "input_size", "input_range", "mean", "std")


class Preprocessed(nn.Module):
    """A network behind its preprocessing: resize (Pillow's bicubic on uint8), scale to ``input_range``, normalise.

    Args:
        network: Module from the declared input to (N, D), or to a dict of such.
        input_size: (height, width) to resize to, or ``None``.
        input_range: Values that 0 and 255 become, or ``None``: the network takes uint8.
        mean: Subtracted per channel after scaling.
        std: Divided by per channel after that.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        input_size: tuple[int, int] | None,
        input_range: tuple[float, float] | None,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.network = network
        self.input_size = input_size
        self.input_range = input_range
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """uint8 (N, 3, H, W) to the network's features."""
        if self.input_size is not None:
            images = pillow(images, self.input_size)
        x = images
        if self.input_range is not None:
            low, high = self.input_range
            x = (images.float() / 255.0 * (high - low) + low - self.mean) / self.std
        try:
            features: Tensor | dict[str, Tensor] = self.network(x)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            given = (
                "uint8 images, since no `input_range` is declared; declare one, e.g. (0.0, 1.0), if it takes floats"
                if self.input_range is None
                else f"float images in {self.input_range}, as declared; leave `input_range` out if it takes uint8"
            )
            raise RuntimeError(
                f"The extractor network {type(self.network).__name__} failed on images of shape {tuple(x.shape)} "
                f"({type(error).__name__}: {error}). It was given {given}. Declare `input_size` if it takes another "
                "size."
            ) from error
        return features


def build(name: str, spec: Any) -> Extractor:
    """Wrap a user's network as the extractor ``name``.

    Args:
        name: Its name in metric names: ``fd_<name>``.
        spec: An ``nn.Module`` (it gets uint8 images (N, 3, H, W)), an ``Extractor``, the import path of one or of a
            callable without arguments that makes one, or a dict with ``network`` and optionally ``input_size``,
            ``input_range``, ``mean`` and ``std``.

    Returns:
        The extractor; it has a copy of the network, so that the user's keeps its mode, device and gradients.

    Raises:
        TypeError: If ``spec`` is none of these.
        ValueError: If the dict has unknown keys, normalises without a range, or has preprocessing for an ``Extractor``.
    """
    options: dict[str, Any] = dict(spec) if isinstance(spec, Mapping) else {"network": spec}
    unknown = sorted(options.keys() - set(_KEYS))
    if unknown or "network" not in options:
        raise ValueError(
            f"`extractors[{name!r}]` must have the key 'network' and may have {', '.join(_KEYS[1:])}, but its keys are "
            f"{', '.join(map(repr, options)) or 'none'}."
        )
    network = _resolve(name, options.pop("network"))
    if not isinstance(network, Extractor):
        return _wrapped(name, network, options)
    if options:
        raise ValueError(
            f"`extractors[{name!r}]` is an Extractor, which has its own preprocessing, but {', '.join(options)} was "
            "given. Leave it out, or give the bare nn.Module."
        )
    return network.renamed(name)


def _resolve(name: str, network: Any) -> nn.Module | Extractor:
    """The network or extractor that the user means."""
    network = resolve_object(network, f"extractors[{name!r}]")
    if not isinstance(network, nn.Module | Extractor) and callable(network):
        network = network()
    if isinstance(network, nn.Module | Extractor):
        return network
    raise TypeError(
        f"`extractors[{name!r}]` must be an nn.Module, an Extractor or an import path of one, but got "
        f"{type(network).__name__}."
    )


def _wrapped(name: str, network: nn.Module, options: Mapping[str, Any]) -> Extractor:
    size, span = options.get("input_size"), options.get("input_range")
    mean, std = tuple(options.get("mean") or (0.0,)), tuple(options.get("std") or (1.0,))
    if span is None and ("mean" in options or "std" in options):
        raise ValueError(f"`extractors[{name!r}]` has mean or std without `input_range`; give it, e.g. (0.0, 1.0).")
    size = (size, size) if isinstance(size, int) else (tuple(size) if size is not None else None)
    code = f"code {fingerprint(network)[:12]}"
    preprocessing = f"size {size or 'as it is'}, range {span or 'uint8'}, mean {mean}, std {std}, {code}"
    identity = Identity(name, weights=sha256_of_state(network), preprocessing=preprocessing, origin="custom")
    with torch.no_grad():  # else copies of scripted modules have parameters that cannot be frozen
        own = copy.deepcopy(network)
    return Extractor(Preprocessed(own, size, tuple(span) if span else None, mean, std), identity)
