"""Any network of the user's as an extractor."""

import copy
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.resize import pillow
from lightning_synthqual.extractors.weights import sha256_of_state
from lightning_synthqual.importing import resolve_object

_KEYS = ("network", "input_size", "input_range", "mean", "std")


class Preprocessed(nn.Module):
    """A network behind its preprocessing: resize (Pillow's bicubic on uint8), scale to ``input_range``, normalise.

    Args:
        network: From what it declares to want to (N, D), or to a dict of such.
        input_size: (height, width) to resize to, or ``None``.
        input_range: What 0 and 255 become, or ``None``: the network takes uint8.
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
                f"({type(error).__name__}: {error}). It was given {given}. Declare `input_size` if it wants another "
                "size."
            ) from error
        return features


def build(name: str, spec: Any) -> Extractor:
    """Wrap a user's network as the extractor ``name``.

    Args:
        name: Its name in metric names: ``fd_<name>``.
        spec: An ``nn.Module`` (it gets uint8 images (N, 3, H, W)), the import path of one or of a callable without
            arguments that makes one, or a dict with ``network`` and, as wanted, ``input_size``, ``input_range``,
            ``mean`` and ``std``.

    Raises:
        TypeError: If ``spec`` is none of these.
        ValueError: If the dict has unknown keys, or normalises without a range.
    """
    options: dict[str, Any] = dict(spec) if isinstance(spec, Mapping) else {"network": spec}
    unknown = sorted(options.keys() - set(_KEYS))
    if unknown or "network" not in options:
        raise ValueError(
            f"`extractors[{name!r}]` must have the key 'network' and may have {', '.join(_KEYS[1:])}, but its keys are "
            f"{', '.join(map(repr, options)) or 'none'}."
        )
    network = resolve_object(options["network"], f"extractors[{name!r}]")
    if not isinstance(network, nn.Module) and callable(network):
        network = network()
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"`extractors[{name!r}]` must be an nn.Module or an import path of one, but got {type(network).__name__}."
        )
    size, span = options.get("input_size"), options.get("input_range")
    mean, std = tuple(options.get("mean") or (0.0,)), tuple(options.get("std") or (1.0,))
    if span is None and ("mean" in options or "std" in options):
        raise ValueError(f"`extractors[{name!r}]` has mean or std without `input_range`; give it, e.g. (0.0, 1.0).")
    size = (size, size) if isinstance(size, int) else (tuple(size) if size is not None else None)
    # A copy: the user's module keeps its mode, its device and its gradients, whatever is done here.
    module = Preprocessed(copy.deepcopy(network), size, tuple(span) if span else None, mean, std)
    preprocessing = f"size {size or 'as it is'}, range {span or 'uint8'}, mean {mean}, std {std}, {_code(network)}"
    identity = Identity(name, weights=sha256_of_state(network), preprocessing=preprocessing, origin="custom")
    return Extractor(module, identity)


def _code(network: nn.Module) -> str:
    """A short digest of what the network computes, as far as its classes' sources and its structure tell."""
    digest = hashlib.sha256(repr(network).encode())
    for kind in sorted({type(module) for module in network.modules()}, key=lambda kind: kind.__qualname__):
        try:
            digest.update(inspect.getsource(kind).encode())
        except (OSError, TypeError):
            digest.update(f"{kind.__module__}.{kind.__qualname__}".encode())
    return f"code {digest.hexdigest()[:12]}"
