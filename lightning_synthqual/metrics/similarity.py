"""Images to numbers, without any network: how similar two are, and the entropy of one."""

from math import log

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales, by Wang et al. 2003
_LEAST_SIDES = (11, 22, 44, 99, 176)  # from which torchmetrics takes one, two, ... scales with windows of 11 pixels
_WINDOW, _SIGMA = 11, 1.5  # of the Gaussian windows of structural similarity, in pixels
_C1, _C2 = 0.01**2, 0.03**2  # its constants, for values in [0, 1]
_BLOCK = 16  # images at once


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pairs of images, in dB; higher is more similar, infinite for equal ones.

    One value per pair, not one of the error pooled over pairs. It favours plain images. Agrees with torchmetrics and
    scikit-image.

    Args:
        a: Images (N, C, H, W), uint8 (data range 255) or float in [0, 1].
        b: Images of the same shape and kind.

    Returns:
        float64 tensor (N,).

    Raises:
        TypeError: If the images are no tensors.
        ValueError: If shapes or kinds are not as stated, or a float is beyond [0, 1].

    Example:
        >>> import torch
        >>> a = torch.zeros(1, 3, 8, 8)
        >>> round(psnr(a, a + 0.1).item(), 6)
        20.0
    """
    a, b = _unit_range(a, "a"), _unit_range(b, "b")
    _check_alike(a, b)
    error: Tensor = (a - b).square().mean(dim=(1, 2, 3))
    return -10 * error.log10()


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity of pairs of images (Wang et al. 2003); higher is more similar, 1 for equal.

    Windows of 11 pixels, five scales. Images of fewer than 176 pixels have fewer scales: the first ones, with their
    weights scaled up to sum to 1 (see ``ms_ssim_scales``). Negative means count as 0. Agrees with torchmetrics.

    Args:
        a: Images (N, C, H, W), uint8 or float in [0, 1], at least 11 pixels high and wide.
        b: Images of the same shape and kind.

    Returns:
        float64 tensor (N,).

    Raises:
        TypeError: If the images are no tensors.
        ValueError: If shapes or kinds are not as stated, a float is beyond [0, 1], or the images are too small.

    Example:
        >>> import torch
        >>> a = torch.rand(2, 3, 32, 32)
        >>> [round(value, 6) for value in ms_ssim(a, a).tolist()]
        [1.0, 1.0]
    """
    a, b = _unit_range(a, "a"), _unit_range(b, "b")
    _check_alike(a, b)
    scales = ms_ssim_scales(a.shape[2], a.shape[3])
    weights = torch.tensor(_SCALE_WEIGHTS[:scales], dtype=torch.float64, device=a.device)
    if scales < len(_SCALE_WEIGHTS):
        weights /= weights.sum()
    parts, blur = zip(a.split(_BLOCK), b.split(_BLOCK), strict=True), _Blur(a.device)
    return torch.cat([_similarities(x, y, scales, blur).pow(weights[:, None]).prod(dim=0) for x, y in parts])


def _similarities(x: Tensor, y: Tensor, scales: int, blur: "_Blur") -> Tensor:
    """By scale (scales, N): the means of contrast and structure, at the last scale of luminance too; at least 0."""
    found = []
    for scale in range(scales):
        if scale:
            x, y = (avg_pool2d(each, 2) for each in (x, y))
        if scale == scales - 1:
            x, y = (pad(each, (_WINDOW // 2,) * 4, mode="reflect") for each in (x, y))  # as torchmetrics does
        x_mean, y_mean = blur(x), blur(y)
        x_variance, y_variance = (blur(x * x) - x_mean**2).clamp(min=0), (blur(y * y) - y_mean**2).clamp(min=0)
        structure = (2 * (blur(x * y) - x_mean * y_mean) + _C2) / (x_variance + y_variance + _C2)
        if scale == scales - 1:
            structure = structure * (2 * x_mean * y_mean + _C1) / (x_mean**2 + y_mean**2 + _C1)
        found.append(structure.mean(dim=(1, 2, 3)).clamp(min=0))
    return torch.stack(found)


class _Blur:
    """Means over Gaussian windows that lie within the image, as two products with banded matrices, made once a size."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bands: dict[int, Tensor] = {}
        window = torch.exp(-(torch.arange(-(_WINDOW // 2), _WINDOW // 2 + 1).double() / _SIGMA).square() / 2)
        self._window = window / window.sum()

    def __call__(self, pictures: Tensor) -> Tensor:
        rows, columns = (self._band(side) for side in pictures.shape[2:])
        return rows @ pictures @ columns.T

    def _band(self, side: int) -> Tensor:
        if side not in self._bands:
            places = torch.arange(side) - torch.arange(side - _WINDOW + 1)[:, None]
            inside = (places >= 0) & (places < _WINDOW)
            band = torch.where(inside, self._window[places.clamp(0, _WINDOW - 1)], 0.0)
            self._bands[side] = band.to(self._device)
        return self._bands[side]


def ms_ssim_scales(height: int, width: int) -> int:
    """How many of its five scales ``ms_ssim`` uses for images of this size.

    Raises:
        ValueError: If not even one fits.

    Example:
        >>> ms_ssim_scales(176, 200), ms_ssim_scales(175, 200), ms_ssim_scales(32, 32)
        (5, 4, 2)
    """
    scales = sum(min(height, width) >= side for side in _LEAST_SIDES)
    if scales == 0:
        raise ValueError(f"MS-SSIM needs images of at least {_LEAST_SIDES[0]} pixels, but got {height}x{width}.")
    return scales


def shannon_entropy(images: Tensor) -> Tensor:
    """Shannon entropy of the values of each image, in bits, averaged over the channels: from 0 to 8.

    Of 256 values; it sees how many there are, not where. Agrees with scikit-image, channel by channel.

    Args:
        images: Images (N, C, H, W), uint8, or float in [0, 1], which are rounded to 256 values.

    Returns:
        float64 tensor (N,).

    Raises:
        TypeError: If the images are no tensor.
        ValueError: If shape or kind are not as stated, or a float is beyond [0, 1].

    Example:
        >>> import torch
        >>> shannon_entropy(torch.tensor([0, 255, 0, 255], dtype=torch.uint8).view(1, 1, 2, 2)).tolist()
        [1.0]
    """
    levels = (_unit_range(images, "images") * 255).round().long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.float64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels, dtype=torch.float64))
    shares = counts / levels.shape[2]
    nats: Tensor = -torch.special.xlogy(shares, shares).sum(dim=2).mean(dim=1)
    return nats / log(2)


def _unit_range(images: Tensor, role: str) -> Tensor:
    """Images as float64 in [0, 1]."""
    if not isinstance(images, Tensor):
        raise TypeError(f"`{role}` must be a tensor of images, but got {type(images).__name__}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"`{role}` must have shape (N, C, H, W), none of them 0, but got {tuple(images.shape)}.")
    if images.dtype == torch.uint8:
        return images.double() / 255
    if not images.is_floating_point():
        raise ValueError(f"`{role}` must be uint8 or floating point, but got {images.dtype}.")
    wrong = ~((images >= 0) & (images <= 1)).flatten(1).all(dim=1)
    if wrong.any():
        raise ValueError(
            f"`{role}` has floats that are NaN or beyond [0, 1], first in image {int(wrong.nonzero()[0])}. "
            "Scale and clamp them, or pass uint8."
        )
    return images.detach().double()


def _check_alike(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"`a` and `b` must have the same shape, but got {tuple(a.shape)} and {tuple(b.shape)}.")
