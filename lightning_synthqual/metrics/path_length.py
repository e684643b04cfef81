"""Perceptual path length (Karras et al. 2019, arXiv:1812.04948): the arithmetic; drawing path ends is not done here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from lightning_synthqual.metrics.base import Influence, Metric, Score
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.views import Generated, PathSource, RealSets, SetView

Space = Literal["z", "w"]
Sampling = Literal["full", "end"]
_NETWORK_SIDE = 256
_OUTSIDE = 0.01  # share that the filter leaves out at either end
_FEW = 16  # pairs of a smoke test
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Path:
    """Which steps are measured.

    Args:
        space: Space of the latents: ``"z"``, the generator's input (on the sphere), or ``"w"``, its mapping's output.
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


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Points on the great circles from ``a`` to ``b``, as StyleGAN finds them.

    Args:
        a: Latents (N, D), any floating dtype; their lengths do not matter.
        b: Latents (N, D).
        t: Position on the way, from 0 at ``a`` to 1 at ``b``: a number, or (N,) or (N, 1).

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


def path_length(distances: Tensor, epsilon: float) -> Influence:
    """The mean of the filtered distances over steps of ``epsilon``, divided by its square.

    The influences are those of a trimmed mean: the distances, the outer ones moved to the ends of the remaining ones,
    less their mean, over the share that remains (Tukey and McLaughlin 1963).

    Args:
        distances: (N,), N >= 2, of a kind that grows with the square of the step, as LPIPS does.
        epsilon: The step.

    Returns:
        The length, and the influences of the steps (N,), float64; none of real rows.
    """
    scaled = distances.double() / epsilon**2
    kept = filter_percentiles(scaled)
    winsorised = scaled.clamp(kept.min(), kept.max())
    share = len(kept) / len(scaled)
    return Influence(kept.mean(), (winsorised - winsorised.mean()) / share, scaled.new_zeros(0))


def distances(one: Tensor, other: Tensor, path: Path, distance: Distance) -> Tensor:
    """Distances (n,), float64, of the images at both ends of steps, cropped and shrunk as published.

    Args:
        one: Images (n, 3, H, W), float32 on [0, 255].
        other: Images at the other ends.
        path: Kind of the steps.
        distance: Function of two stacks of images, that returns (n,).

    Raises:
        ValueError: If the distance returns something else than (n,) finite numbers.
    """
    factor = shrink_factor(*one.shape[2:])
    ends = [shrink(crop_middle(images) if path.crop else images, factor) for images in (one, other)]
    with torch.no_grad():
        found = distance(ends[0], ends[1])
    if not isinstance(found, Tensor) or found.shape != (len(one),):
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"The distance of {len(one)} pairs of images must have the shape ({len(one)},), but got {what}."
        )
    if not found.isfinite().all():
        raise ValueError("The distance of two images of a path is NaN or infinite.")
    return found.double()


_COMMON: Options = {
    "num_pairs": option(10_000, low=2),
    "epsilon": option(1e-4, above=0, high=1),
    "crop": option(None, choices=(True, False)),
    "distance": option("lpips_vgg", (str, Callable)),
    "mapping": option("mapping"),
    "synthesis": option("synthesis"),
    "noise": option("*noise_const"),
    "z_length": option("unit", choices=("unit", "gaussian")),
}


class PublishedPathLength(Metric):
    """Perceptual path length of a generator, by the recipe that its name stands for.

    Args:
        name: Name under which it is reported.
        path: Kind of the steps.
        **arguments: Further arguments of `Metric`.
    """

    family = "ppl"
    direction = "min"
    reads_real = False
    needs_generator = True
    OPTIONS: ClassVar[Options] = _COMMON

    def __init__(self, name: str, *, path: Path, **arguments: Any) -> None:
        self._published = path
        super().__init__(name, **arguments)

    @property
    def path(self) -> Path:
        """Kind of the steps."""
        crop = self.options["crop"]
        return self._published if crop is None else replace(self._published, crop=crop)

    def networks(self) -> Mapping[str, Any]:
        """The distance."""
        return {"distance": self.options["distance"]}

    def describe(self, generated: SetView) -> dict[str, Any]:
        """What makes the length."""
        distance = self.options["distance"]
        if not isinstance(distance, str):
            distance = getattr(distance, "__qualname__", type(distance).__name__)
        own = {"z": ("z_length",), "w": ("mapping", "synthesis")}[self.path.space]
        used = {name: self.options[name] for name in ("epsilon", "noise", *own)}
        return {
            "family": self.family,
            "distance": distance,
            "num_pairs": self._count,
            **used,
            **asdict(self.path),
        }

    def prepare_sets(self, real: RealSets) -> None:
        """Nothing: real images take no part."""

    def score_set(self, state: None, generated: Generated) -> Score:
        """The length and the influence of each pair of images."""
        source, count = self._source(generated), self._count
        for warning in self._check(source):
            self.runtime.warn(warning)
        indices: list[int] = []
        results = []
        with self.runtime.progress(self.name, count) as advance:
            for numbers, one, other in source.pairs(count):
                if len(numbers):
                    results.append(self._measure(one, other).cpu())
                    indices += numbers
                advance(len(numbers) * self.runtime.shard.world_size)
        found = self.runtime.gather(torch.cat(results) if results else None, indices, count)
        influence = path_length(found, self.options["epsilon"])
        return Score(influence.value, influence=influence)

    def try_out(self, generated: Generated, real_size: tuple[int, int] | None) -> Iterator[str]:
        """Measure two pairs of equal images."""
        yield from self._check(self._source(generated))

    @property
    def _count(self) -> int:
        """Number of pairs."""
        count: int = self.options["num_pairs"]
        return min(count, _FEW) if self.runtime.smoke_test else count

    def _source(self, generated: Generated) -> PathSource:
        if generated.paths is None:
            raise ValueError(
                f"{self.name} samples a generator's latent space, but `fake` are finished images. Pass the "
                "generator, a module, or leave the metric out."
            )
        return generated.paths(self.path.space, self.path.sampling, self.options)

    def _check(self, source: PathSource) -> list[str]:
        """Noise may grow while a generator trains, so this is done at every evaluation."""
        one, other, warnings = source.check()
        self._measure(one, other)
        return warnings

    def _measure(self, one: Tensor, other: Tensor) -> Tensor:
        device = self.runtime.device
        return distances(one.to(device), other.to(device), self.path, self.runtime.networks["distance"])


class PathLengthMetric(PublishedPathLength):
    """Perceptual path length of a generator, by the user's own choice of space, sampling and crop."""

    OPTIONS: ClassVar[Options] = {
        **_COMMON,
        "space": option("w", choices=("z", "w")),
        "sampling": option("end", choices=("full", "end")),
    }

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__(name, path=Path("w", "end", crop=False), **arguments)

    @property
    def path(self) -> Path:
        """Kind of the steps."""
        return Path(self.options["space"], self.options["sampling"], bool(self.options["crop"]))
