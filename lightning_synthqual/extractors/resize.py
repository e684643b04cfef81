"""Resizing as the published protocols do it, on any device and for whole batches.

The weights of Pillow's filters are applied as matrices. Its 8-bit arithmetic is fixed point, and integers of that size
are exact in float64, so the pixels are Pillow's own, whereas PyTorch's uint8 and float interpolation differ by levels.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from lightning_synthqual.extractors.constants import constant

Size = tuple[int, int]

_FIXED_POINT_BITS = 22  # Pillow's: 32 less 8 for the pixel and 2 for overshoot
_CHUNK_BYTES = 1 << 28


def tensorflow1_bilinear(images: Tensor, size: Size) -> Tensor:
    """TensorFlow 1's bilinear interpolation, without half-pixel centres or antialiasing: the one of the published FID.

    Args:
        images: uint8 or float tensor (N, C, H, W).
        size: (height, width).

    Returns:
        float32 tensor (N, C, height, width); the same as torch-fidelity's, whose function it calls.
    """
    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=size, align_corners=False)
    return resized


def antialiased_bilinear(images: Tensor, size: Size) -> Tensor:
    """PyTorch's antialiased bilinear interpolation on floats, which torchmetrics' FID applies since 1.8.

    Args:
        images: uint8 or float tensor (N, C, H, W).
        size: (height, width).

    Returns:
        float32 tensor (N, C, height, width).
    """
    return F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False, antialias=True)


def pillow(images: Tensor, size: Size, interpolation: str = "bicubic") -> Tensor:
    """``PIL.Image.resize`` of 8-bit images, to the bit.

    Args:
        images: uint8 tensor (N, C, H, W).
        size: (height, width).
        interpolation: ``"bicubic"`` or ``"bilinear"``, both antialiased.

    Returns:
        uint8 tensor (N, C, height, width).
    """

    def fixed_point(filtered: Tensor) -> Tensor:
        scale = 1 << _FIXED_POINT_BITS
        return ((filtered + scale // 2) / scale).floor_().clamp_(0, 255)

    return _filtered(images, size, interpolation, _fixed_point_weights, fixed_point, torch.uint8)


def pillow_float(images: Tensor, size: Size, interpolation: str = "bicubic") -> Tensor:
    """``PIL.Image.resize`` of each channel as a float image (mode F), clamped to [0, 255]: clean-fid's protocol.

    Args:
        images: uint8 or float tensor (N, C, H, W), values in [0, 255].
        size: (height, width).
        interpolation: ``"bicubic"`` or ``"bilinear"``, both antialiased.

    Returns:
        float32 tensor (N, C, height, width).
    """

    def single_precision(filtered: Tensor) -> Tensor:
        return filtered.float().double()

    return _filtered(images, size, interpolation, _weights, single_precision, torch.float32).clamp_(0.0, 255.0)


def shortest_side(size: Size, target: int) -> Size:
    """The (height, width) whose shorter side is ``target`` and whose longer side is rounded down, as torchvision's."""
    height, width = size
    if height <= width:
        return target, int(target * width / height)
    return int(target * height / width), target


def centre_crop(images: Tensor, size: Size) -> Tensor:
    """The middle (height, width) of images (N, C, H, W) that are at least as large; torchvision's rounding."""
    height, width = size
    top, left = round((images.shape[2] - height) / 2), round((images.shape[3] - width) / 2)
    return images[:, :, top : top + height, left : left + width]


def _filtered(
    images: Tensor,
    size: Size,
    interpolation: str,
    weights: Callable[[str, int, int], Tensor],
    rounded: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """Filter the rows, round, filter the columns, round; a side that keeps its length is not filtered."""
    device = images.device
    height, width = images.shape[2:]
    pixels = 8 * images.shape[1] * max(height, size[0]) * max(width, size[1])
    done = []
    for chunk in images.split(max(1, _CHUNK_BYTES // pixels)):
        x = chunk.to(_float64_device(device)).double()
        if width != size[1]:
            x = rounded(x @ constant(x.device, weights, interpolation, width, size[1]).T)
        if height != size[0]:
            x = rounded(constant(x.device, weights, interpolation, height, size[0]) @ x)
        done.append(x.to(dtype).to(device))
    return torch.cat(done)


def _float64_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU where the device has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _weights(interpolation: str, before: int, after: int) -> Tensor:
    """The filter as a float64 matrix (after, before) whose rows sum to one."""
    support, kernel = _FILTERS[interpolation]
    scale = before / after
    stretch = max(scale, 1.0)
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for row in range(after):
        centre = (row + 0.5) * scale
        first = max(int(centre - support * stretch + 0.5), 0)
        last = min(int(centre + support * stretch + 0.5), before)
        values = [kernel((place - centre + 0.5) / stretch) for place in range(first, last)]
        matrix[row, first:last] = torch.tensor(values, dtype=torch.float64) / sum(values)
    return matrix


def _fixed_point_weights(interpolation: str, before: int, after: int) -> Tensor:
    """The same as integers, rounded half away from zero."""
    scaled = _weights(interpolation, before, after) * (1 << _FIXED_POINT_BITS)
    return torch.trunc(scaled + torch.sign(scaled) * 0.5)


def _bilinear(x: float) -> float:
    return max(1.0 - abs(x), 0.0)


def _bicubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0


_FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {"bilinear": (1.0, _bilinear), "bicubic": (2.0, _bicubic)}
