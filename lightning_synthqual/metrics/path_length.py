"""Perceptual path length (Karras et al. 2019, arXiv:1812.04948): the arithmetic; drawing path ends is not done here."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Space = Literal["z", "w"]
Sampling = Literal["full", "end"]
_NETWORK_SIDE = 256
_OUTSIDE = 0.01  # share that the filter leaves out at either end


@dataclass(frozen=True)
class Path:
    """Which steps are measured.

    Args:
        space: Of the generator's input, ``"z"`` (on the sphere), or of its mapping's output, ``"w"`` (straight).
        sampling: Steps anywhere between two latents (``"full"``), or at the first of them (``"end"``).
        crop: Whether only the middle of the images is compared, where an aligned face would be.
    """

    space: Space
    sampling: Sampling
    crop: bool


PUBLISHED: dict[str, Path] = {
    "ppl_z_full": Path("z", "full", crop=True),
    "ppl_z_end": Path("z", "end", crop=True),
    "ppl_w_full": Path("w", "full", crop=True),
    "ppl_w_end": Path("w", "end", crop=True),
    "ppl2_w_end": Path("w", "end", crop=False),
}


class PathLength(NamedTuple):
    """The length and its standard error over draws of the paths; float64 scalars."""

    value: Tensor
    std: Tensor


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Points on the great circles from ``a`` to ``b``, as StyleGAN finds them.

    Args:
        a: Latents (N, D), any floating dtype; their lengths do not matter.
        b: Latents (N, D).
        t: How far to go, from 0 at ``a`` to 1 at ``b``: a number, or (N,) or (N, 1).

    Returns:
        Rows (N, D) of length 1. Agrees with StyleGAN3's own function, which gives NaN where ``a`` and ``b`` lie on one
        line. Here the way is all the same then if they point the same way, and one of the many great circles if they
        point in opposite ways.

    Raises:
        ValueError: If a row is zero.

    Example:
        >>> import torch
        >>> slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
        tensor([[0.7071, 0.7071]])
    """
    a, b = _unit(a, "a"), _unit(b, "b")
    t = torch.as_tensor(t, dtype=a.dtype, device=a.device).reshape(-1, 1)
    cosine = (a * b).sum(dim=1, keepdim=True)
    across = b - cosine * a
    length = torch.linalg.vector_norm(across, dim=1, keepdim=True)
    in_line = length <= 8 * torch.finfo(a.dtype).eps
    if in_line.any():
        # Across the line lies what is left of the axis that it touches least.
        axis = functional.one_hot(a.abs().argmin(dim=1), a.shape[1]).to(a)
        other = axis - (axis * a).sum(dim=1, keepdim=True) * a
        across = torch.where(in_line, other, across)
        length = torch.linalg.vector_norm(across, dim=1, keepdim=True)
        cosine = torch.where(in_line, cosine.sign(), cosine)
    angle = t * torch.acos(cosine.clamp(-1, 1))
    return _unit(a * torch.cos(angle) + across / length * torch.sin(angle), "point")


def _unit(rows: Tensor, role: str) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not lengths.all():
        row = int((lengths == 0).nonzero()[0, 0])
        raise ValueError(
            f"Row {row} of `{role}` is a latent of zeros, which has no direction, so there is no path on the sphere. "
            "Draw latents that are not zero, or measure in w."
        )
    return rows / lengths


def crop_middle(images: Tensor) -> Tensor:
    """The window of (N, C, H, W) that StyleGAN compares: rows from 3/8 to 7/8, columns from 2/8 to 6/8."""
    height, width = images.shape[2] // 8, images.shape[3] // 8
    return images[:, :, 3 * height : 7 * height, 2 * width : 6 * width]


def shrink(images: Tensor, factor: int) -> Tensor:
    """Means over boxes of ``factor`` x ``factor`` of (N, C, H, W); what does not fill a box is left out."""
    return functional.avg_pool2d(images, factor) if factor > 1 else images


def shrink_factor(height: int, width: int) -> int:
    """By how much whole generated images of this size are shrunk, to 256 pixels or a little more.

    Cropped images are shrunk by the same factor, as the PyTorch editions of StyleGAN2-ADA and StyleGAN3 do it, and so
    reach the network with half as many; the TensorFlow original took the factor from the cropped image.
    """
    return max(1, min(height, width) // _NETWORK_SIDE)


def filter_percentiles(distances: Tensor) -> Tensor:
    """Those of the distances (N,) that lie between the 1st and the 99th percentile, both included.

    The percentiles are distances that occur, the next lower and the next higher one, as in StyleGAN (torchmetrics takes
    the next lower one at both ends).

    Args:
        distances: (N,), N >= 1, any floating dtype, any device.

    Returns:
        (M,), M <= N, in their order.

    Raises:
        ValueError: If there are none, or one is NaN or infinite.

    Example:
        >>> import torch
        >>> len(filter_percentiles(torch.arange(1000.0)))
        982
    """
    if distances.ndim != 1 or len(distances) == 0:
        raise ValueError(f"`distances` must be of shape (N,) with N >= 1, but have shape {tuple(distances.shape)}.")
    if not distances.isfinite().all():
        raise ValueError(f"{int((~distances.isfinite()).sum())} of {len(distances)} distances are NaN or infinite.")
    values = distances.double()
    low = values.quantile(_OUTSIDE, interpolation="lower")
    high = values.quantile(1 - _OUTSIDE, interpolation="higher")
    return distances[(values >= low) & (values <= high)]


def path_length(distances: Tensor, epsilon: float) -> PathLength:
    """The mean of the filtered distances over steps of ``epsilon``, divided by its square.

    The standard error is that of a trimmed mean, from the variance of the distances with the outer ones moved to the
    ends of what is kept (Tukey and McLaughlin 1963).

    Args:
        distances: (N,), N >= 2, of a kind that grows with the square of the step, as LPIPS does.
        epsilon: The step.
    """
    scaled = distances.double() / epsilon**2
    kept = filter_percentiles(scaled)
    winsorised = scaled.clamp(kept.min(), kept.max())
    std = winsorised.std(correction=1) / (len(kept) / len(scaled) * len(scaled) ** 0.5)
    return PathLength(kept.mean(), std)
