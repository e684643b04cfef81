"""Pair networks: perceptual distance of two images."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from lightning_synthqual.extractors.base import Extractor, FrozenNetwork


class CosineDistance(nn.Module):
    """Two stacks of images to one minus the cosine of their embeddings (N,)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Embed both, and compare."""
        return 1.0 - cosine_similarity(self.network(first), self.network(second))


class PairNetwork(FrozenNetwork):
    """A frozen network that gives the distance of the two images at each index of two stacks.

    Args:
        network: Module from two tensors (N, 3, H, W), both uint8 or both floats in [0, 255], to distances (N,).
        identity: What the network is.

    Example:
        >>> from lightning_synthqual.extractors import Identity
        >>> class Difference(torch.nn.Module):
        ...     def forward(self, first, second):
        ...         return (first.float() - second.float()).abs().mean(dim=(1, 2, 3))
        >>> pair = PairNetwork(Difference(), Identity("difference", weights="none", preprocessing="none"))
        >>> dark, light = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 255.0)
        >>> pair(dark, light)
        tensor([255.])
    """

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Measure the distances.

        Args:
            first: uint8 or float tensor (N, 3, H, W) on the network's device; floats span [0, 255].
            second: The images to compare with, of the same shape and type.

        Returns:
            float32 tensor (N,).

        Raises:
            TypeError: If the two are of different types, or neither uint8 nor float.
            ValueError: If the shapes differ or are not (N, 3, H, W), or if floats are NaN or seem to span [0, 1].
        """
        self._check(first, second)
        self._check_range(first, second)
        return self.measure(first, second)

    def measure(self, first: Tensor, second: Tensor) -> Tensor:
        """As the call, for images that are known to be finite and to span [0, 255], however dark they are."""
        self._check(first, second)
        results = self._in_batches(first, second)
        return torch.cat([result.float() for result in results])

    def _check(self, first: Tensor, second: Tensor) -> None:
        name = self.identity.name
        if first.dtype != second.dtype or not (first.dtype == torch.uint8 or first.is_floating_point()):
            raise TypeError(
                f"{name} takes two stacks of uint8 or two of float images, but got {first.dtype} and {second.dtype}."
            )
        if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3:
            raise ValueError(
                f"{name} takes two stacks of images of one shape (N, 3, H, W), but got {tuple(first.shape)} and "
                f"{tuple(second.shape)}."
            )

    def _check_range(self, first: Tensor, second: Tensor) -> None:
        name = self.identity.name
        if first.is_floating_point() and first.numel():
            low, high = torch.aminmax(torch.stack([first.detach(), second.detach()]))
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise ValueError(f"{name} got images that contain NaN or infinite values.")
            if 0 < high <= 1.0:
                raise ValueError(
                    f"{name} takes float images in [0, 255], but the largest value is {float(high):.3g}. Multiply "
                    "images in [0, 1] by 255, or pass uint8."
                )


def pair_of(extractor: Extractor) -> PairNetwork:
    """The distance of embeddings by an extractor that is loaded already, with which it shares its weights."""
    return PairNetwork(CosineDistance(extractor.network), extractor.identity)
