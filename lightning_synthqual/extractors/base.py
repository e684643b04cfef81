"""What every extractor is: uint8 images in, named float32 features out, with an identity that says what made them."""

import copy
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.constants import release_constants
from lightning_synthqual.precision import check_network_precision, network_precision, untried_convolutions

EXTRACTION_BATCH = 64  # most images of one forward pass, whatever the sampler's batches are
CPU_BATCH = 16  # the same on a CPU, whose caches hold no more
_PROBE_SIZES = ((64, 64), (224, 224), (32, 32))  # tried in turn where the size of the data is not known
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def check_extractor_name(name: Any) -> None:
    """Refuse a name that cannot be part of a metric's name and of a file's name.

    Args:
        name: The name of an extractor or pair network.

    Raises:
        ValueError: If it has other characters than letters, digits, ``_``, ``-``, ``.`` and (for open_clip's
            ``architecture:tag``) ``:``, begins with ``.``, ``-`` or ``:``, or is longer than 100 characters.

    Example:
        >>> check_extractor_name("../../up")
        Traceback (most recent call last):
        ValueError: The extractor name '../../up' must consist of letters, digits, '_', '-', '.' or ':' ...
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"The extractor name {name!r} must consist of letters, digits, '_', '-', '.' or ':' (at most 100) and "
            "begin with a letter, a digit or '_', because metrics and cache files are named after it. "
            "Choose another key in `extractors`."
        )


@dataclass(frozen=True)
class Identity:
    """What made a set of features; features of different identity are never compared.

    Args:
        name: The extractor's name.
        weights: SHA-256 of the weights, or ``"none"``.
        preprocessing: Steps from the uint8 pixels to the network's input, in words.
        precision: Floating point format of the forward pass.
        origin: Source of the weights: ``"published"``, ``"custom"``, ``"unverified"`` (they have the published name,
            but no hash is published to check them against) or ``"none"``. It is not compared.

    Raises:
        ValueError: If the name cannot be part of a file's name.

    Example:
        >>> one = Identity("mine", weights="none", preprocessing="none")
        >>> one == Identity("mine", weights="none", preprocessing="none", precision="bfloat16")
        False
    """

    name: str
    weights: str
    preprocessing: str
    precision: str = "float32"
    origin: str = field(default="none", compare=False)

    def __post_init__(self) -> None:
        check_extractor_name(self.name)

    def describe(self) -> dict[str, str]:
        """The fields as a report's protocol states them."""
        return {
            "weights": self.origin,
            "sha256": self.weights,
            "preprocessing": self.preprocessing,
            "precision": self.precision,
        }

    @property
    def key(self) -> str:
        """Hex digest that changes with whatever changes the features."""
        fields = {name: value for name, value in asdict(self).items() if name != "origin"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Features:
    """Features of one set of images by one extractor.

    Args:
        identity: Identity of the extractor that made them.
        outputs: Tensors (N, D), by the extractor's output names.
    """

    identity: Identity
    outputs: Mapping[str, Tensor]


class FrozenNetwork:
    """A network that is only ever evaluated, in its own precision whatever the trainer's, in batches that fit.

    Args:
        network: The module; it is put into eval mode and its parameters take no gradients.
        identity: Identity of the network.

    Attributes:
        device: The device that the network is on.
    """

    def __init__(self, network: nn.Module, identity: Identity) -> None:
        self.network = network.eval().requires_grad_(False)
        self.identity = identity
        self.device = next((each.device for each in _tensors_of(network)), torch.device("cpu"))
        self._batch_size = _largest_batch(self.device)
        self._batch_sizes: dict[torch.device, int] = {}  # that have fitted on devices where it was before

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and buffers."""
        return sum(each.nbytes for each in _tensors_of(self.network))

    def to(self: "_Network", device: torch.device | str) -> "_Network":
        """Move the network."""
        if torch.device(device) != self.device:
            release_constants()
        self._batch_sizes[self.device] = self._batch_size
        self.network.to(device)
        self.device = torch.device(device)
        self._batch_size = self._batch_sizes.get(self.device, _largest_batch(self.device))
        return self

    def renamed(self: "_Network", name: str) -> "_Network":
        """A copy under another name, which leaves this one on its device and in its precision."""
        other = copy.deepcopy(self)
        other.identity = replace(self.identity, name=name)
        return other

    def with_precision(self: "_Network", precision: str) -> "_Network":
        """Choose ``"float32"``, ``"tf32"`` or ``"bfloat16"`` for the forward pass; the identity says which."""
        check_network_precision(precision)
        self.identity = replace(self.identity, precision=precision)
        return self

    def _in_batches(self, *images: Tensor) -> list[Any]:
        """The network's results for batches of the images; batches are halved when the device runs out of memory."""

        def forward(batch_size: int) -> list[Any]:
            return [self.network(*batch) for batch in zip(*(stack.split(batch_size) for stack in images), strict=True)]

        precise = network_precision(self.identity.precision, images[0].device)
        with torch.no_grad(), precise, untried_convolutions():
            results, self._batch_size = _halving(forward, self._batch_size, len(images[0]), self.identity.name)
        return results


_Network = TypeVar("_Network", bound=FrozenNetwork)


def _tensors_of(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _largest_batch(device: torch.device) -> int:
    return CPU_BATCH if device.type == "cpu" else EXTRACTION_BATCH


def _halving(forward: Callable[[int], _T], batch_size: int, count: int, name: str) -> tuple[_T, int]:
    """Call with a batch size that fits into the device's memory; return it with the result."""
    while True:
        try:
            return forward(batch_size), batch_size
        except RuntimeError as error:
            smaller = min(batch_size, count) // 2
            if smaller == 0 or not _is_out_of_memory(error):
                raise
        # Past the handler, so that the failed pass's tensors are freed with its traceback.
        _log.warning("The device has no memory for %s at %d images a pass; trying %d.", name, batch_size, smaller)
        torch.cuda.empty_cache()
        batch_size = smaller


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device had no memory left: torch's own allocator, or a library that allocates by itself."""
    return isinstance(error, torch.OutOfMemoryError) or "STATUS_ALLOC_FAILED" in str(error)


class Extractor(FrozenNetwork):
    """A frozen network that turns images into float32 features.

    Args:
        network: Module from uint8 (N, 3, H, W) to a tensor (N, D), or to a dict of such.
        identity: Identity of the network.
        embedding: Name of the output that the distribution metrics compare.

    Example:
        >>> from lightning_synthqual.extractors import load
        >>> pixels = load("pixels")
        >>> pixels.identity.preprocessing
        'box 32x32, [-1, 1]'
        >>> pixels(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))["features"].shape
        torch.Size([2, 3072])
    """

    def __init__(self, network: nn.Module, identity: Identity, embedding: str = "features") -> None:
        super().__init__(network, identity)
        self.embedding = embedding

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Extract features.

        Args:
            images: uint8 tensor (N, 3, H, W) on the extractor's device.

        Returns:
            float32 tensors (N, D) by output name.

        Raises:
            TypeError: If the images are not uint8, or the network does not return tensors.
            ValueError: If the images or the features have the wrong shape.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"Extractors take uint8 images, but got {images.dtype}. Quantise them first.")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"Extractors take images of shape (N, 3, H, W), but got {tuple(images.shape)}.")
        results = self._in_batches(images)
        batches = [result if isinstance(result, dict) else {self.embedding: result} for result in results]
        sizes = [len(batch) for batch in images.split(self._batch_size)]
        checked = [
            {name: self._checked(name, output, size) for name, output in batch.items()}
            for batch, size in zip(batches, sizes, strict=True)
        ]
        return {name: torch.cat([batch[name] for batch in checked]) for name in checked[0]}

    def probe(self, size: Sequence[int] | None = None) -> Tensor | None:
        """Features of two fixed images, by which a network recognises the features that it made.

        They tell networks apart whose identities are equal although they compute different things. The random
        generators are left as they were.

        Args:
            size: Height and width of the images; ``None``: a common one that the network takes.

        Returns:
            float32 tensor (2, D) on the CPU, all outputs side by side in the order of their names; ``None`` if the
            network takes no images of that size.
        """
        for height, width in [size] if size is not None else _PROBE_SIZES:
            try:
                with _seeded(self.device):
                    outputs = self(_probe_images(height, width).to(self.device))
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a user's network makes of images of another size
                _log.debug("%s cannot be probed at %dx%d (%s).", self.identity.name, height, width, error)
            else:
                return torch.cat([outputs[name] for name in sorted(outputs)], dim=1).cpu()
        return None

    def _checked(self, name: str, output: Tensor, count: int) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(
                f"Extractor {self.identity.name!r} must return tensors (N, D), but {name!r} is {type(output).__name__}."
            )
        if output.ndim != 2 or len(output) != count:
            raise ValueError(
                f"Extractor {self.identity.name!r} must return features of shape (N, D), but {name!r} has shape "
                f"{tuple(output.shape)} for {count} images. Flatten or pool inside the module."
            )
        return output.float()


def _probe_images(height: int, width: int) -> Tensor:
    """Two uint8 images (2, 3, height, width): noise of single pixels, and of blocks of 8, which pooling keeps."""
    draw = torch.Generator().manual_seed(0)
    fine = torch.randint(0, 256, (3, height, width), generator=draw)
    coarse = torch.randint(0, 256, (3, -(-height // 8), -(-width // 8)), generator=draw)
    coarse = coarse.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, :height, :width]
    return torch.stack([fine, coarse]).to(torch.uint8)


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of a GPU, and put them back."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reach every GPU
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(0)
        yield
