"""The one place where values become pixels: uint8 (N, 3, H, W), checked and rounded by one rule."""

from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from lightning_synthqual.images.ranges import Declaration, PixelRange, Range, generated_range

__all__ = ["PixelRange", "quantise"]


def quantise(images: Tensor, declared: Range | Declaration, what: str) -> tuple[Tensor, PixelRange]:
    """Turn images into uint8 as a saved PNG would: scale to [0, 255], round half to even, clamp; never wrap.

    Args:
        images: (N, C, H, W) with C of 1 or 3; uint8, other integers or floating point.
        declared: What values span, (low, high), for generated images; or what was declared of a set; ignored for
            uint8.
        what: Where the images come from, for messages.

    Returns:
        uint8 (N, 3, H, W), one channel being repeated, and the values seen (empty for uint8).

    Raises:
        TypeError: If the images are not a tensor, or neither integers nor floating point.
        ValueError: If the shape is wrong, or a value is NaN or infinite.
    """
    _check(images, what)
    seen = PixelRange()
    if images.dtype != torch.uint8:
        declaration = declared if isinstance(declared, Declaration) else generated_range(declared)
        images, seen = _round(images, declaration.range_of(images.dtype), what)
    return (images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)), seen


def _check(images: Tensor, what: str) -> None:
    if not isinstance(images, Tensor) or images.layout is not torch.strided:
        kind = images.layout if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"{what} must return a tensor (N, C, H, W), but returned {kind}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{what} must return images of shape (N, C, H, W), but returned {tuple(images.shape)}.")
    if images.shape[1] not in (1, 3):
        channels_last = images.shape[-1] in (1, 3)
        remedy = "Permute them to (N, C, H, W)" if channels_last else "Drop or merge channels (alpha, for example)"
        raise ValueError(
            f"{what} returned images of shape {tuple(images.shape)}: {images.shape[1]} channels, where 1 or 3 are "
            f"expected. {remedy}."
        )
    if images.dtype == torch.bool or images.is_complex():
        raise TypeError(f"{what} returned {images.dtype} images. Return uint8, or numbers with a declared range.")


def _round(images: Tensor, declared: Range, what: str) -> tuple[Tensor, PixelRange]:
    low, high = declared
    integers = not images.is_floating_point()
    limit = torch.iinfo(images.dtype).max if integers else 0
    images = images.double() if integers else images.float()  # float32 cannot tell large integers apart
    seen = replace(PixelRange.of(images, declared), type_limit=limit)
    if not (isfinite(seen.low) and isfinite(seen.high)):
        bad = int((~torch.isfinite(images).flatten(start_dim=1).all(dim=1)).nonzero()[0])
        raise ValueError(
            f"{what} returned NaN or infinite values, first in image {bad} of {len(images)}. "
            "Has the training diverged, or does the sampler divide by zero?"
        )
    levels = (images - low) * (255.0 / (high - low))
    return levels.round_().clamp_(0, 255).to(torch.uint8), seen
