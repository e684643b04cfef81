"""What every extractor is: uint8 pictures in, named float32 features out, with an identity that says what made them."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

EXTRACTION_BATCH = 64  # pictures a forward pass takes at most, whatever the sampler's batches are
CPU_BATCH = 16  # on a CPU, whose caches more do not fit into
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What made a set of features; features of different identity are never compared.

    Args:
        name: The extractor's name.
        weights: SHA-256 of the weights, or ``"none"``.
        preprocessing: What happens between the uint8 pixels and the network, in words.
        precision: Floating point format of the forward pass.
        origin: Whose weights they are: ``"published"``, ``"custom"``, ``"unverified"`` (they bear the published name,
            but no hash is published to hold them against) or ``"none"``. It takes no part in comparisons.

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
        identity: What made them.
        outputs: Tensors (N, D), by the extractor's output names.
    """

    identity: Identity
    outputs: Mapping[str, Tensor]


class Frozen:
    """A network that is only ever evaluated, in its own precision whatever the trainer's, in batches that fit.

    Args:
        network: The module; it is put into eval mode and its parameters take no gradients.
        identity: What the network is.
    """

    def __init__(self, network: nn.Module, identity: Identity) -> None:
        self.network = network.eval().requires_grad_(False)
        self.identity = identity
        self._batch_size = CPU_BATCH

    def to(self: "_Frozen", device: torch.device | str) -> "_Frozen":
        """Move the network."""
        self.network.to(device)
        self._batch_size = CPU_BATCH if torch.device(device).type == "cpu" else EXTRACTION_BATCH
        return self

    def with_precision(self: "_Frozen", precision: str) -> "_Frozen":
        """Choose ``"float32"`` or ``"bfloat16"`` (autocast) for the forward pass; the identity says which."""
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"`precision` must be 'float32' or 'bfloat16', but got {precision!r}.")
        self.identity = replace(self.identity, precision=precision)
        return self

    def _in_batches(self, *images: Tensor) -> list[Any]:
        """The network's results for batches of the images; batches are halved when the device runs out of memory."""

        def forward(batch_size: int) -> list[Any]:
            return [self.network(*batch) for batch in zip(*(stack.split(batch_size) for stack in images), strict=True)]

        half = self.identity.precision == "bfloat16"
        device = images[0].device.type
        with torch.no_grad(), full_precision(), torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            results, self._batch_size = _halving(forward, self._batch_size, len(images[0]), self.identity.name)
        return results


_Frozen = TypeVar("_Frozen", bound=Frozen)


def _halving(forward: Callable[[int], _T], batch_size: int, count: int, name: str) -> tuple[_T, int]:
    """Call with a batch size that fits into the device's memory; return it with the result."""
    while True:
        try:
            return forward(batch_size), batch_size
        except torch.OutOfMemoryError:
            smaller = min(batch_size, count) // 2
            if smaller == 0:
                raise
        # Past the handler, so that the failed pass's tensors are freed with its traceback.
        _log.warning("The device has no memory for %s at %d images a pass; trying %d.", name, batch_size, smaller)
        torch.cuda.empty_cache()
        batch_size = smaller


class Extractor(Frozen):
    """A frozen network that turns pictures into float32 features.

    Args:
        network: Module from uint8 (N, 3, H, W) to a tensor (N, D), or to a dict of such.
        identity: What the network is.
        embedding: Which output the distribution metrics compare.

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


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep float32 products and convolutions in float32, whatever the training chose for itself."""
    settings = _precision_settings()
    before = [setting.fp32_precision for setting in settings]
    older = _older_settings()
    if older is not None:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    for setting in settings:
        if setting.fp32_precision not in ("none", "ieee"):
            setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            torch.backends.cudnn.allow_tf32 = older[1]
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def _precision_settings() -> list[Any]:
    """Where newer versions of torch hold the precision of float32 work; none in older ones."""
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    places = ((cuda, "matmul"), (cudnn, "conv"), (cudnn, "rnn"), (mkldnn, "matmul"), (mkldnn, "conv"), (mkldnn, "rnn"))
    settings = [getattr(backend, name, None) for backend, name in places]
    return settings if all(hasattr(setting, "fp32_precision") for setting in settings) else []


def _older_settings() -> tuple[str, bool] | None:
    """Precision of products and whether cuDNN may use TF32; torch refuses to say once the newer settings are in use."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None
