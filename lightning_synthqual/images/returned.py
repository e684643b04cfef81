"""From what samplers return, tensors, arrays, PIL images or objects that hold these, to one tensor (N, C, H, W)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_synthqual.images.files import array_to_tensor, image_to_tensor

_CHANNELS = (1, 3)
_KEY = "images"  # of a dict, and attribute of an object, such as the output of a diffusers pipeline


def as_tensor(found: Any, what: str) -> Tensor:
    """The images (N, C, H, W) that a sampler has returned, with their values and type as they are.

    Args:
        found: A tensor or array (N, C, H, W), or (N, H, W, C) where that is not ambiguous: 1 or 3 channels at the end,
            and another number of rows; or (N, H, W) of a numpy array; a list of PIL images, arrays (H, W, C) or tensors
            (C, H, W) of one size; or a dict or an object that has one of these as ``images``.
        what: Where the images come from, for messages.

    Raises:
        TypeError: If it is something else.
        ValueError: If an array is ambiguous, a PIL image cannot be used as it is, or the sizes differ.
    """
    found = _held(found)
    if isinstance(found, list | tuple):
        return _stacked(found, what)
    if isinstance(found, np.ndarray):
        return _from_array(found, what)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"{what} must return a tensor (N, C, H, W), a numpy array (N, H, W, C), a list of PIL images, or an object "
            f"or dict that has one of these as `images`, but returned {type(found).__name__}."
        )
    return _channels_first(found)


def _held(found: Any) -> Any:
    """The images in an object or dict that has them."""
    if isinstance(found, Mapping):
        return found.get(_KEY, found)
    if isinstance(found, Tensor | np.ndarray | list) or (isinstance(found, tuple) and not hasattr(found, _KEY)):
        return found
    return getattr(found, _KEY, found)


def _from_array(array: np.ndarray[Any, Any], what: str) -> Tensor:
    try:
        tensor = array_to_tensor(array)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} returned an array that cannot be used: {error}.") from error
    if tensor.ndim == 4 and {tensor.shape[1], tensor.shape[3]} <= set(_CHANNELS):
        raise ValueError(
            f"{what} returned an array of shape {tuple(tensor.shape)}, whose channels may stand at its second or its "
            "last place. Return a tensor (N, C, H, W), where they are at the second."
        )
    return tensor[:, None] if tensor.ndim == 3 else _channels_first(tensor)


def _channels_first(images: Tensor) -> Tensor:
    """Move channels that stand at the end; where both places may hold them, the usual order is meant."""
    if images.ndim == 4 and images.shape[1] not in _CHANNELS and images.shape[3] in _CHANNELS:
        return images.permute(0, 3, 1, 2)
    return images


def _stacked(parts: list[Any] | tuple[Any, ...], what: str) -> Tensor:
    images = [_single(part, f"{what} (image {index})") for index, part in enumerate(parts)]
    sizes = sorted({tuple(image.shape) for image in images})
    if len(sizes) != 1:
        listed = ", ".join(map(str, sizes)) or "none at all"
        raise ValueError(f"{what} must return images (C, H, W) of one size, but returned a list with {listed}.")
    return torch.stack(images)


def _single(part: Any, where: str) -> Tensor:
    try:
        if isinstance(part, Image.Image):
            return image_to_tensor(part)
        if isinstance(part, np.ndarray) and part.ndim in (2, 3):
            tensor = array_to_tensor(part)
            return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where} is an image that cannot be used: {error}.") from error
    if isinstance(part, Tensor) and part.ndim == 3 and part.layout is torch.strided:
        return part
    shape = f" of shape {tuple(part.shape)}" if isinstance(part, Tensor | np.ndarray) else ""
    raise TypeError(
        f"{where} must be a PIL image, an array (H, W, C) or a tensor (C, H, W), but is {type(part).__name__}{shape}."
    )
